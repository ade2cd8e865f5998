/**
 * Tensors with values, in the memory of this process: what executors take and give, and what files hold.
 *
 * Symbolic tensors are elsewhere; nothing here computes.
 */

import type { DType } from './dtype.ts';
import { e4m3ToF32, f32ToE4m3 } from './float8.ts';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from './float16.ts';
import { elementCount, formatType, type Shape } from './shape.ts';

/** The typed array that holds each dtype: 16-bit and 8-bit floats as their bits, booleans as 0 and 1. */
export interface HostArrays {
  readonly f32: Float32Array;
  readonly f16: Uint16Array;
  readonly bf16: Uint16Array;
  readonly i32: Int32Array;
  readonly bool: Uint8Array;
  readonly f8e4m3: Uint8Array;
  readonly f8e5m2: Uint8Array;
}

/** The typed array of dtype `D`; of any dtype when `D` is left out. */
export type HostArray<D extends DType = DType> = HostArrays[D];

/**
 * Values on the host: `data` holds the elements of `shape`, dense and row-major.
 *
 * Without `D` it is a union, so `tensor.dtype === 'f32'` tells the compiler that `tensor.data` is a `Float32Array`.
 */
export type HostTensor<D extends DType = DType> = {
  [K in D]: { readonly shape: Shape; readonly dtype: K; readonly data: HostArray<K> };
}[D];

const constructors: {
  readonly [D in DType]: {
    new (length: number): HostArray<D>;
    new (buffer: ArrayBufferLike, byteOffset: number, length: number): HostArray<D>;
  };
} = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
  bool: Uint8Array,
  f8e4m3: Uint8Array,
  f8e5m2: Uint8Array,
};

/** A tensor of zeros. */
export function zeros<D extends DType>(dtype: D, shape: Shape): HostTensor<D> {
  return unchecked(dtype, shape, new constructors[dtype](elementCount(shape)));
}

/**
 * A tensor over `data`, which is not copied.
 * @throws RangeError if `data` does not have as many elements as `shape`.
 */
export function hostTensor<D extends DType>(dtype: D, shape: Shape, data: HostArray<D>): HostTensor<D> {
  if (data.length !== elementCount(shape)) {
    throw new RangeError(
      `${formatType({ shape, dtype })}: ${data.length} elements given, the shape has ${elementCount(shape)}`,
    );
  }
  return unchecked(dtype, shape, data);
}

/**
 * A tensor over part of a buffer, from byte `offset` on, which is not copied.
 * @throws RangeError if it does not lie within the buffer, or not at a multiple of its element's bytes.
 */
export function tensorIn<D extends DType>(
  buffer: ArrayBufferLike,
  offset: number,
  dtype: D,
  shape: Shape,
): HostTensor<D> {
  return unchecked(dtype, shape, new constructors[dtype](buffer, offset, elementCount(shape)));
}

/** The bytes of a tensor as they are in memory: a view, not a copy. Little-endian, as on every platform we run on. */
export function bytesOf(tensor: HostTensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/**
 * The values as float32: the tensor's own array if it is f32, otherwise a new one.
 *
 * f16, bf16 and f8e4m3 widen exactly; i32 rounds to nearest beyond 2^24; bool gives 0 and 1.
 * @throws TypeError for f8e5m2, which is storage only.
 */
export function toFloat32(tensor: HostTensor): Float32Array {
  switch (tensor.dtype) {
    case 'f32':
      return tensor.data;
    case 'f16':
      return f16ToF32(tensor.data);
    case 'bf16':
      return bf16ToF32(tensor.data);
    case 'i32':
    case 'bool':
      return Float32Array.from(tensor.data);
    case 'f8e4m3':
      return e4m3ToF32(tensor.data);
    case 'f8e5m2':
      throw new TypeError(`${formatType(tensor)}: f8e5m2 has no conversion; use its bits`);
  }
}

/** Floats that float32 values can be rounded to. */
export type RealDType = 'f32' | 'f16' | 'bf16' | 'f8e4m3';

/**
 * A tensor of `dtype` from float32 `values`, rounded to nearest, ties to even, f8e4m3 to at most 448; f32 keeps `values`
 * itself.
 * @throws RangeError if the number of values is not that of `shape`.
 */
export function fromFloat32<D extends RealDType>(
  dtype: D,
  shape: Shape,
  values: Float32Array,
): HostTensor<D> {
  const narrow: { readonly [K in RealDType]: (values: Float32Array) => HostArray<K> } = {
    f32: (same) => same,
    f16: f32ToF16,
    bf16: f32ToBf16,
    f8e4m3: f32ToE4m3,
  };
  return hostTensor(dtype, shape, narrow[dtype](values));
}

/** The compiler cannot see that a generic `D` is one member of the union; this is the only place that says so. */
function unchecked<D extends DType>(dtype: D, shape: Shape, data: HostArray<D>): HostTensor<D> {
  return { shape, dtype, data } as unknown as HostTensor<D>;
}
