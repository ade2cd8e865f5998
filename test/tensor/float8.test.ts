import { describe, expect, it } from 'vitest';
import { e4m3ToF32, f32ToE4m3 } from '../../src/tensor/float8.ts';

const patterns = Uint8Array.from({ length: 256 }, (_, i) => i);

/** The value that a pattern stands for, from the definition of the format. */
function definition(pattern: number): number {
  const [sign, exponent, fraction] = [pattern & 0x80 ? -1 : 1, (pattern >> 3) & 15, (pattern & 7) / 8];
  if (exponent === 15 && fraction === 7 / 8) return Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -6 : sign * (1 + fraction) * 2 ** (exponent - 7);
}

describe('f8e4m3', () => {
  it('widens all 256 patterns to the value that they stand for', () => {
    const wide = e4m3ToF32(patterns);
    for (const pattern of patterns) expect(wide[pattern]).toBe(definition(pattern));
  });

  it('narrows each value back to itself', () => {
    const finite = patterns.filter((pattern) => (pattern & 0x7f) !== 0x7f);
    expect(f32ToE4m3(e4m3ToF32(finite))).toEqual(finite);
  });

  it('rounds to nearest, ties to even, at and beside every midpoint', () => {
    for (let pattern = 0; pattern < 0x7e; pattern++) {
      const middle = (definition(pattern) + definition(pattern + 1)) / 2;
      const even = pattern % 2 === 0 ? pattern : pattern + 1;
      const near = Float32Array.of(middle * (1 - 2 ** -22), middle, middle * (1 + 2 ** -22));
      expect([...f32ToE4m3(near)]).toEqual([pattern, even, pattern + 1]);
      const mirrored = near.map((value) => -value);
      expect([...f32ToE4m3(mirrored)]).toEqual([pattern, even, pattern + 1].map((bits) => bits | 0x80));
    }
  });

  it('becomes 448 for all that is larger, and NaN for NaN alone', () => {
    const extremes = Float32Array.of(449, 1e30, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);
    expect([...e4m3ToF32(f32ToE4m3(extremes))]).toEqual([448, 448, 448, -448]);
    expect(e4m3ToF32(f32ToE4m3(Float32Array.of(Number.NaN)))[0]).toBeNaN();
  });
});
