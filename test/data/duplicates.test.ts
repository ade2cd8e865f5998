import { describe, expect, test } from 'vitest';
import { findDuplicates, fingerprint, type Likeness } from '../../src/data/preflight/duplicates.ts';
import { durationHistogram, rateHistogram, sizeHistogram } from '../../src/data/preflight/histogram.ts';
import { keyFromSeed, RandomStream } from '../../src/random/philox.ts';

function picture(width: number, height: number, value: (x: number, y: number) => number) {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const pixel = Math.floor(i / 3);
    data[i] = value((pixel % width) / width, Math.floor(pixel / width) / height);
  }
  return { width, height, data };
}

describe('the fingerprint', () => {
  test('of a picture is the same at any size, to a level or two', () => {
    const slope = (x: number, y: number) => 200 * x + 50 * y;
    const large = fingerprint([picture(160, 96, slope)]);
    const small = fingerprint([picture(48, 32, slope)]);
    expect(large.length).toBe(8 * 8 * 3);
    expect(Math.max(...large.map((value, i) => Math.abs(value - small[i]!)))).toBeLessThanOrEqual(3);
  });
  test('of a picture smaller than its cells is defined', () => {
    expect([...new Set(fingerprint([picture(3, 2, () => 77)]))]).toEqual([77]);
  });
});

describe('duplicates', () => {
  const file = (name: string, level: number, more: Partial<Likeness> = {}): Likeness => ({
    file: name,
    hash: name,
    seconds: 2,
    fingerprint: new Uint8Array(192).fill(level),
    ...more,
  });

  test('are exact by bytes, near by looks, and neither by being empty', () => {
    const files = [
      file('a', 10),
      file('b', 200, { hash: 'same' }),
      file('c', 200, { hash: 'same' }),
      file('d', 204),
      file('e', 12, { seconds: 3 }),
      file('f', 0, { hash: '', fingerprint: new Uint8Array() }),
      file('g', 0, { hash: '', fingerprint: new Uint8Array() }),
    ];
    expect(findDuplicates(files)).toEqual({ exact: [['b', 'c']], near: [['b', 'd']] });
  });

  test('equal those found by comparing every pair', () => {
    for (let seed = 0; seed < 30; seed++) {
      const random = new RandomStream(keyFromSeed(seed));
      const files = Array.from({ length: 60 }, (_, i) =>
        file(String(i), 0, {
          fingerprint: Uint8Array.from({ length: 12 }, () => 100 + 12 * random.int(2) + random.int(3)),
        }),
      );
      const near = (a: Likeness, b: Likeness) =>
        a.fingerprint.every((v, i) => Math.abs(v - b.fingerprint[i]!) <= 5);
      const groupOf = files.map((_, i) => i);
      for (const [i, a] of files.entries()) {
        for (const [j, b] of files.entries()) {
          if (!near(a, b)) continue;
          const [from, to] = [groupOf[j], groupOf[i]];
          for (const [k, group] of groupOf.entries()) if (group === from) groupOf[k] = to!;
        }
      }
      const expected = [...Map.groupBy(files.keys(), (i) => groupOf[i]).values()].filter(
        (group) => group.length > 1,
      );
      const found = findDuplicates(files).near.map((group) => group.map(Number));
      expect(found, `seed ${seed}`).toEqual(expected.sort((a, b) => a[0]! - b[0]!));
    }
  });
});

describe('histograms', () => {
  test('count everything', () => {
    const durations = durationHistogram([0.1, 0.5, 0.99, 5, 1e6]).bars;
    expect(durations.reduce((sum, { count }) => sum + count, 0)).toBe(5);
    expect(durations.slice(0, 2)).toEqual([
      { label: 'under 0.5 s', count: 1 },
      { label: '0.5 to 1 s', count: 2 },
    ]);
    expect(durationHistogram([]).bars).toEqual([]);
  });
  test('put the rarest together, so that none is lost', () => {
    const rates = Array.from({ length: 40 }, (_, i) => i + 1);
    const { bars } = rateHistogram([24, 24, 23.976, 23.98, ...rates]);
    expect(bars.length).toBe(12);
    expect(bars.at(-1)).toEqual({ label: '30 others', count: 30 });
    expect(bars.find(({ label }) => label === '23.98 fps')?.count).toBe(2);
    expect(bars.reduce((sum, { count }) => sum + count, 0)).toBe(44);
  });
  test('sort sizes by their pixels', () => {
    const sizes = [
      [320, 180],
      [64, 64],
      [1920, 1080],
      [64, 64],
    ].map(([width, height]) => ({ width: width!, height: height! }));
    expect(sizeHistogram(sizes).bars).toEqual([
      { label: '64x64', count: 2 },
      { label: '320x180', count: 1 },
      { label: '1920x1080', count: 1 },
    ]);
  });
});
