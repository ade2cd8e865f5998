import { afterEach, describe, expect, it, vi } from 'vitest';
import { boxMuller } from '../../src/random/normal.ts';
import { keyFromSeed, normal, philox4x32, randomInts } from '../../src/random/philox.ts';
import { openVectorDraws } from '../../src/random/vector-draws.ts';

const all = 0xffff_ffff;

/** Words at which anything changes: ends of the range, quarter turns, powers of two and what lies beside them. */
function edgeWords(): number[] {
  const powers = Array.from({ length: 32 }, (_, bit) => 2 ** bit);
  const quarters = [0x2000_0000, 0x6000_0000, 0xa000_0000, 0xe000_0000, 0x4000_0000, 0xc000_0000];
  const roots = powers.map((power) => Math.floor(power * Math.SQRT2) >>> 0);
  return [0, all, ...[...powers, ...quarters, ...roots].flatMap((word) => [word - 1, word, word + 1])].map(
    (word) => word >>> 0,
  );
}

describe('draws as WebAssembly', () => {
  const vectors = openVectorDraws()!;

  it('make the normals of the plain transform, bit by bit, at every edge and on a million words', () => {
    const edges = edgeWords();
    const pairs = edges.flatMap((first) => edges.flatMap((second) => [first, second]));
    const words = Uint32Array.from([...pairs, ...randomInts(keyFromSeed(3), 1_000_000, 2 ** 32)]);
    const size = vectors.words.length;
    const expected = new Float32Array(size);
    for (let start = 0; start < words.length; start += size) {
      const part = words.subarray(start, start + size);
      vectors.words.set(part);
      vectors.boxMuller(part.length);
      boxMuller(vectors.words, expected, part.length);
      const bits = (values: Float32Array) => Buffer.from(values.slice(0, part.length).buffer);
      expect(bits(vectors.values).equals(bits(expected))).toBe(true);
    }
  });

  it('make the words of Philox', () => {
    for (const [c0, c1, c2, c3] of [
      [0, 0, 0, 0],
      [all - 2, 7, 8, 9],
      [0x8000_0000, all, 1, all],
    ] as const)
      for (const key of [
        { k0: 0, k1: 0 },
        { k0: all, k1: 0x8000_0001 },
      ]) {
        vectors.philox(c0, c1, c2, c3, key.k0, key.k1, 9);
        const expected = Array.from({ length: 9 }, (_, i) => philox4x32([c0 + i, c1, c2, c3], key));
        expect([...vectors.words.subarray(0, 36)]).toEqual(expected.flat());
      }
  });
});

describe('an engine without WebAssembly', () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
  });

  it('draws the same', async () => {
    vi.stubGlobal('WebAssembly', undefined);
    vi.resetModules();
    const plain = await import('../../src/random/philox.ts');
    for (const offset of [0, 5, 2 ** 34 - 4098]) {
      expect(plain.normal(keyFromSeed(4), 9001, { offset })).toEqual(
        normal(keyFromSeed(4), 9001, { offset }),
      );
      expect(plain.randomInts(keyFromSeed(4), 9001, 77, { offset })).toEqual(
        randomInts(keyFromSeed(4), 9001, 77, { offset }),
      );
    }
  });
});
