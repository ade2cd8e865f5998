import { describe, expect, it } from 'vitest';
import { keyFromSeed, randomInts } from '../../src/random/philox.ts';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '../../src/tensor/float16.ts';

const patterns = Uint16Array.from({ length: 65_536 }, (_, i) => i);

/** The value a 16-bit pattern stands for, from the definition of the format. */
function definition(pattern: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const sign = pattern & 0x8000 ? -1 : 1;
  const exponent = (pattern & 0x7fff) >>> fractionBits;
  const fraction = (pattern & ((1 << fractionBits) - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

const formats = [
  { name: 'f16', exponentBits: 5, widen: f16ToF32, narrow: f32ToF16, infinity: 0x7c00 },
  { name: 'bf16', exponentBits: 8, widen: bf16ToF32, narrow: f32ToBf16, infinity: 0x7f80 },
];

describe.each(formats)('$name', ({ exponentBits, widen, narrow, infinity }) => {
  it('widens all 65,536 patterns to the value they stand for', () => {
    const wide = widen(patterns);
    const wrong = patterns.filter((p) => !Object.is(wide[p], definition(p, exponentBits)));
    expect([...wrong]).toEqual([]);
  });

  it('narrows each widened pattern back to itself, NaN payloads included', () => {
    expect(narrow(widen(patterns))).toEqual(patterns);
  });

  it('rounds to nearest, ties to even, at and beside every midpoint', () => {
    const wide = widen(patterns);
    for (let p = 0; p < infinity; p++) {
      // The step above the largest finite value is as wide as the one below it.
      const upper = p + 1 === infinity ? 2 * wide[p]! - wide[p - 1]! : wide[p + 1]!;
      const middle = (wide[p]! + upper) / 2;
      const word = new Uint32Array(Float32Array.of(middle).buffer)[0]!;
      const near = new Float32Array(Uint32Array.of(word - 1, word, word + 1).buffer);
      const even = p % 2 === 0 ? p : p + 1;
      expect([...narrow(near)]).toEqual([p, even, p + 1]);
      expect([...narrow(near.map((x) => -x))]).toEqual([p, even, p + 1].map((q) => q | 0x8000));
    }
  });

  it('keeps NaN a NaN whose payload is below the bits that are kept', () => {
    const payloads = new Float32Array(Uint32Array.of(0x7f80_0001, 0xff80_0001, 0x7fc0_0000).buffer);
    for (const x of widen(narrow(payloads))) expect(x).toBeNaN();
  });

  it('overflows to infinity and underflows to signed zero', () => {
    const extremes = Float32Array.of(3.4028234663852886e38, -3.4028234663852886e38, 1e-45, -1e-45);
    expect([...narrow(extremes)]).toEqual([infinity, infinity | 0x8000, 0, 0x8000]);
  });

  it('reads and writes views that do not start at zero', () => {
    const values = Float32Array.of(9, 1, -2);
    expect([...widen(narrow(values.subarray(1)))]).toEqual([1, -2]);
  });
});

it('f16 agrees with Float16Array of the engine on a million random float32 patterns', (context) => {
  const Engine: (new (values: Float32Array) => { buffer: ArrayBuffer }) | undefined = Reflect.get(
    globalThis,
    'Float16Array',
  );
  if (Engine === undefined) return context.skip('this Node has no Float16Array to compare with');
  const words = randomInts(keyFromSeed(1), 1_000_000, 2 ** 32);
  // Half of them near the range of f16, where rounding happens.
  for (let i = 0; i < words.length; i += 2)
    words[i] = (words[i]! & 0x807f_ffff) | ((100 + (words[i]! >>> 24) / 5) << 23);
  const values = new Float32Array(words.buffer).filter((x) => !Number.isNaN(x));
  expect(f32ToF16(values)).toEqual(new Uint16Array(new Engine(values).buffer));
});
