/**
 * The two 16-bit floats, as their bits: IEEE 754 binary16 (f16: 5 exponent bits, 10 of fraction) and bfloat16 (bf16: the
 * upper half of a float32).
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even, overflows to infinity, and keeps a NaN a NaN with the
 * upper bits of its payload, so that widening and narrowing again gives every one of the 65,536 patterns back.
 */

/** float32 bits of every f16, made at first use: looked up four times faster than computed. */
let widened: Uint32Array | undefined;

/** float32 values of f16 `bits`, exactly. */
export function f16ToF32(bits: Uint16Array): Float32Array {
  widened ??= Uint32Array.from({ length: 2 ** 16 }, (_, half) => widenF16(half));
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = widened[bits[i] ?? 0] ?? 0;
  return new Float32Array(words.buffer);
}

/** f16 bits of float32 `values`, rounded to nearest, ties to even. */
export function f32ToF16(values: Float32Array): Uint16Array {
  const words = wordsOf(values);
  const bits = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) bits[i] = narrowToF16(words[i] ?? 0);
  return bits;
}

/** float32 values of bf16 `bits`, exactly. */
export function bf16ToF32(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] ?? 0) << 16;
  return new Float32Array(words.buffer);
}

/** bf16 bits of float32 `values`, rounded to nearest, ties to even. */
export function f32ToBf16(values: Float32Array): Uint16Array {
  const words = wordsOf(values);
  const bits = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) bits[i] = narrowToBf16(words[i] ?? 0);
  return bits;
}

/** float32 bits, through a view: reading a float as a number could change a NaN. */
function wordsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function widenF16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f80_0000 | (fraction << 13);
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  // Subnormal, fraction * 2^-24: normal in float32 once its leading one, `lead`, is shifted out.
  const lead = 31 - Math.clz32(fraction);
  return sign | ((lead + 103) << 23) | ((fraction << (23 - lead)) & 0x7f_ffff);
}

function narrowToF16(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7c00 | ((magnitude >>> 13) & 0x3ff || 0x200);
  // From 2^16 on everything is infinity; between 65,520 and 2^16 the rounding below carries into it.
  if (magnitude >= 0x4780_0000) return sign | 0x7c00;
  if (magnitude >= 0x3880_0000) return sign | (shiftRightRounded(magnitude, 13) - (112 << 10));
  // Below 2^-14 the result counts steps of 2^-24; half a step and less is zero.
  const exponent = magnitude >>> 23;
  if (exponent < 102) return sign;
  return sign | shiftRightRounded((magnitude & 0x7f_ffff) | 0x80_0000, 126 - exponent);
}

function narrowToBf16(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7f80 | ((magnitude >>> 16) & 0x7f || 0x40);
  return sign | shiftRightRounded(magnitude, 16);
}

/** `value / 2^shift` rounded to nearest, ties to even; `value` below 2^31, `shift` from 1 to 24. */
function shiftRightRounded(value: number, shift: number): number {
  const odd = (value >>> shift) & 1;
  return (value + (1 << (shift - 1)) - 1 + odd) >>> shift;
}
