import { describe, expect, expectTypeOf, it } from 'vitest';
import { bytesPerElement, dtypes } from '../../src/tensor/dtype.ts';
import {
  bytesOf,
  fromFloat32,
  type HostTensor,
  hostTensor,
  toFloat32,
  zeros,
} from '../../src/tensor/host-tensor.ts';

describe('HostTensor', () => {
  it.each(dtypes)('%s has the array its element size asks for', (dtype) => {
    const tensor = zeros(dtype, [2, 3]);
    expect(tensor).toMatchObject({ dtype, shape: [2, 3] });
    expect(tensor.data.length).toBe(6);
    expect(bytesOf(tensor).byteLength).toBe(6 * bytesPerElement(dtype));
    expect(zeros(dtype, []).data.length).toBe(1);
    expect(zeros(dtype, [4, 0]).data.length).toBe(0);
  });

  it('tells the compiler the array from the dtype', () => {
    expectTypeOf<HostTensor<'f32'>['data']>().toEqualTypeOf<Float32Array>();
    expectTypeOf<Extract<HostTensor, { dtype: 'bf16' }>['data']>().toEqualTypeOf<Uint16Array>();
    expectTypeOf<HostTensor<'f16'>>().toExtend<HostTensor>();
  });

  it('refuses data that does not fill the shape', () => {
    expect(() => hostTensor('f32', [2, 3], new Float32Array(5))).toThrow(
      'f32[2, 3]: 5 elements given, the shape has 6',
    );
  });

  it('views bytes without a copy, and only its own', () => {
    const whole = Float32Array.of(1, 2, 3);
    const tensor = hostTensor('f32', [1], whole.subarray(1, 2));
    const bytes = bytesOf(tensor);
    expect([...bytes]).toEqual([0, 0, 0, 0x40]);
    bytes.fill(0);
    expect([...whole]).toEqual([1, 0, 3]);
  });

  it('converts to and from float32', () => {
    const values = Float32Array.of(0, -1.5, 3, 65504);
    for (const dtype of ['f32', 'f16', 'bf16'] as const) {
      const expected = dtype === 'bf16' ? [0, -1.5, 3, 65536] : [...values];
      expect([...toFloat32(fromFloat32(dtype, [2, 2], values))]).toEqual(expected);
    }
    expect([...toFloat32(hostTensor('i32', [2], Int32Array.of(-7, 7)))]).toEqual([-7, 7]);
    expect([...toFloat32(hostTensor('bool', [2], Uint8Array.of(0, 1)))]).toEqual([0, 1]);
    expect(() => toFloat32(zeros('f8e5m2', [2]))).toThrow('f8e5m2[2]: f8e5m2 has no conversion');
    expect(() => fromFloat32('f16', [3], values)).toThrow(RangeError);
  });
});
