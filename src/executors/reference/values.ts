import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '../../tensor/float16.ts';
import { fromFloat32, type HostTensor, hostTensor, toFloat32 } from '../../tensor/host-tensor.ts';
import { at, elementCount, rowMajorStrides, type Shape, type TensorType } from '../../tensor/shape.ts';

/** Values of the reference executor: every dtype in float64, row-major. i32 and bool are exact; f32 is not rounded. */
export interface Values extends TensorType {
  readonly data: Float64Array;
}

/** Values of a host tensor. */
export function fromHost(tensor: HostTensor): Values {
  const data = tensor.dtype === 'i32' || tensor.dtype === 'bool' ? tensor.data : toFloat32(tensor);
  return { shape: tensor.shape, dtype: tensor.dtype, data: Float64Array.from(data) };
}

/** Values as a host tensor, rounded to their dtype. */
export function toHost({ shape, dtype, data }: Values): HostTensor {
  switch (dtype) {
    case 'i32':
      return hostTensor(dtype, shape, Int32Array.from(data));
    case 'bool':
      return hostTensor(dtype, shape, Uint8Array.from(data));
    case 'f32':
    case 'f16':
    case 'bf16':
    case 'f8e4m3':
      return fromFloat32(dtype, shape, Float32Array.from(data));
    case 'f8e5m2':
      throw new TypeError(`${dtype} values are storage only; the reference executor computes none`);
  }
}

/** Rounds results to what their dtype can hold: f16 and bf16 to 16 bits, i32 to 32; f32 stays exact, as the oracle. */
export function rounded({ shape, dtype }: TensorType, data: Float64Array): Values {
  return { shape, dtype, data: roundTo(dtype, data) };
}

function roundTo(dtype: TensorType['dtype'], data: Float64Array): Float64Array {
  if (dtype === 'f16') return Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(data))));
  if (dtype === 'bf16') return Float64Array.from(bf16ToF32(f32ToBf16(Float32Array.from(data))));
  if (dtype === 'i32') return data.map((value) => value | 0);
  return data;
}

/** Every index of `shape` in row-major order; the array passed to `visit` is reused. */
export function forEachIndex(
  shape: Shape,
  visit: (index: readonly number[], position: number) => void,
): void {
  const index = new Array<number>(shape.length).fill(0);
  const count = elementCount(shape);
  for (let position = 0; position < count; position++) {
    visit(index, position);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const next = at(index, axis) + 1;
      index[axis] = next < at(shape, axis) ? next : 0;
      if (next < at(shape, axis)) break;
    }
  }
}

/** Positions in row-major data at which an operand broadcast to `shape` is read; axes of size 1 stand still. */
export function broadcastReader(
  { shape: own }: TensorType,
  shape: Shape,
): (index: readonly number[]) => number {
  const strides = rowMajorStrides(own).map((stride, axis) => (own[axis] === 1 ? 0 : stride));
  const offset = shape.length - own.length;
  return (index) =>
    strides.reduce((position, stride, axis) => position + stride * at(index, axis + offset), 0);
}

/** Row-major position of `index` in `shape`. */
export function positionOf(index: readonly number[], shape: Shape): number {
  return shape.reduce((position, size, axis) => position * size + at(index, axis), 0);
}
