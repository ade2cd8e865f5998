/**
 * The 8-bit float of quantised products, f8e4m3, as its bits: 4 exponent bits, 3 of fraction, largest value 448, no
 * infinity, one NaN of each sign (Micikevicius et al. 2022, "FP8 formats for deep learning").
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even; what is larger than 448, infinity too, becomes 448, as
 * the hardware's saturating conversion does it. A NaN stays a NaN.
 */

/** Largest value of f8e4m3. */
export const largestE4m3 = 448;

/** Smallest step of f8e4m3: below 2^-6 its values are multiples of it. */
const smallestStep = 2 ** -9;
const nan = 0x7f;

/** float32 values of f8e4m3 `bits`, exactly. */
export function e4m3ToF32(bits: Uint8Array): Float32Array {
  return Float32Array.from(bits, widen);
}

/** f8e4m3 bits of float32 `values`, rounded to nearest, ties to even, at most 448. */
export function f32ToE4m3(values: Float32Array): Uint8Array {
  return Uint8Array.from(values, narrow);
}

function widen(bits: number): number {
  const magnitude = bits & 0x7f;
  if (magnitude === nan) return Number.NaN;
  const [exponent, fraction] = [magnitude >>> 3, magnitude & 7];
  const value = exponent === 0 ? fraction * smallestStep : (8 + fraction) * 2 ** (exponent - 10);
  return bits & 0x80 ? -value : value;
}

function narrow(value: number): number {
  if (Number.isNaN(value)) return nan;
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const magnitude = Math.min(Math.abs(value), largestE4m3);
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -6);
  // Steps of 2^(exponent - 3): 8 to 16 of them from one power of two to the next, fewer below the smallest.
  const steps = roundToEven(magnitude / 2 ** (exponent - 3));
  return sign | (8 * (exponent + 6) + steps);
}

function roundToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
