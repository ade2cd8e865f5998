/**
 * Element types of tensors.
 *
 * Models are written in `f32`; `f16` and `bf16` are for storage and for executors that compute in them.
 * The two 8-bit floats can be stored and loaded, and no operation takes them; executors hold operands of products in
 * f8e4m3 where their precision says so.
 */
export type DType = 'f32' | 'f16' | 'bf16' | 'i32' | 'bool' | 'f8e4m3' | 'f8e5m2';

/** Every {@link DType}, in declaration order. */
export const dtypes = [
  'f32',
  'f16',
  'bf16',
  'i32',
  'bool',
  'f8e4m3',
  'f8e5m2',
] as const satisfies readonly DType[];

const bytes: { readonly [D in DType]: number } = {
  f32: 4,
  f16: 2,
  bf16: 2,
  i32: 4,
  bool: 1,
  f8e4m3: 1,
  f8e5m2: 1,
};

/** Bytes that one element of `dtype` takes in memory and in files. */
export function bytesPerElement(dtype: DType): number {
  return bytes[dtype];
}

/** Whether `dtype` holds real numbers that gradients can flow through. */
export function isFloat(dtype: DType): boolean {
  return dtype !== 'i32' && dtype !== 'bool';
}
