/** A rate as containers store it: `num / den` frames per second. */
export interface RationalRate {
  readonly num: number;
  readonly den: number;
}

/**
 * The simplest fraction for a rate: whole numbers and their NTSC relatives (24000/1001) exactly, others to a
 * thousandth of a frame per second.
 *
 * @param rate frames per second, above 0.
 */
export function rationalRate(rate: number): RationalRate {
  for (const den of [1, 2, 3, 1001]) {
    const num = Math.round(rate * den);
    if (num > 0 && Math.abs(num / den - rate) <= 1e-5 * rate) return { num, den };
  }
  const den = rate < 1 ? 1_000_000 : 1000;
  return { num: Math.max(1, Math.round(rate * den)), den };
}
