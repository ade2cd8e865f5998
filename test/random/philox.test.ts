import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  fold,
  type Key,
  keyFromSeed,
  normal,
  permutation,
  philox4x32,
  RandomStream,
  randomInts,
  split,
  uniform,
  type Words4,
} from '../../src/random/philox.ts';

const all = 0xffff_ffff;

/** Philox as the paper writes it, in bigints: the oracle of the 16-bit arithmetic. */
function philoxOracle(counter: Words4, key: Key): number[] {
  const mask = 0xffff_ffffn;
  let [x0, x1, x2, x3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let k0 = BigInt(key.k0);
  let k1 = BigInt(key.k1);
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * x0;
    const b = 0xcd9e8d57n * x2;
    [x0, x1, x2, x3] = [(b >> 32n) ^ x1 ^ k0, b & mask, (a >> 32n) ^ x3 ^ k1, a & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [x0, x1, x2, x3].map(Number);
}

function sha(data: ArrayBufferView): string {
  return createHash('sha256')
    .update(new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength))
    .digest('hex');
}

describe('philox4x32', () => {
  // The philox4x32-10 lines of Random123's kat_vectors.
  const vectors: [Words4, Key, number[]][] = [
    [[0, 0, 0, 0], { k0: 0, k1: 0 }, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    [[all, all, all, all], { k0: all, k1: all }, [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      { k0: 0xa4093822, k1: 0x299f31d0 },
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  it.each(vectors)('gives the published answer for counter %j, key %j', (counter, key, expected) => {
    expect(philox4x32(counter, key)).toEqual(expected);
  });

  it('equals the paper on 2,000 random and extreme inputs', () => {
    const words = randomInts(keyFromSeed(11), 12_000, 2 ** 32);
    const extremes = [0, 1, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, all];
    const word = (i: number) => (i % 5 === 0 ? extremes[words[i]! % extremes.length]! : words[i]!);
    for (let i = 0; i < 12_000; i += 6) {
      const counter: Words4 = [word(i), word(i + 1), word(i + 2), word(i + 3)];
      const key = { k0: word(i + 4), k1: word(i + 5) };
      expect(philox4x32(counter, key)).toEqual(philoxOracle(counter, key));
    }
  });
});

describe('keys', () => {
  it('takes numbers and bigints of equal value to one key', () => {
    for (const seed of [0, 1, 2 ** 31, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER, -1, -(2 ** 40)]) {
      expect(keyFromSeed(seed)).toEqual(keyFromSeed(BigInt(seed)));
    }
    expect(keyFromSeed(0x1234_5678_9abc_def0n)).toEqual({ k0: 0x9abc_def0, k1: 0x1234_5678 });
  });

  it('refuses seeds that would be silently cut', () => {
    expect(() => keyFromSeed(0.5)).toThrow('seed: 0.5 is not an integer');
    expect(() => keyFromSeed(Number.NaN)).toThrow(RangeError);
    expect(() => keyFromSeed(2 ** 60)).toThrow('give an integer, or a bigint');
    expect(() => keyFromSeed(2n ** 64n)).toThrow('does not fit in 64 bits');
    expect(() => fold(keyFromSeed(0), 1.5)).toThrow('fold: 1.5');
  });

  it('derives different children for different data', () => {
    const key = keyFromSeed(3);
    const names = [
      '',
      '\0',
      '\0\0',
      '1',
      'noise',
      'noisf',
      'noise\0',
      'noisenoise',
      'ノイズ',
      'a'.repeat(100),
    ];
    const integers = [0, 1, -1, 2 ** 32, 2 ** 32 + 1, -(2 ** 32), Number.MAX_SAFE_INTEGER];
    const children = [...names, ...integers].map((data) => JSON.stringify(fold(key, data)));
    expect(new Set([JSON.stringify(key), ...children]).size).toBe(1 + children.length);
    expect(fold(fold(key, 'a'), 'b')).not.toEqual(fold(fold(key, 'b'), 'a'));
  });

  it('has no collision among 100,000 folded keys, nor with the words the key draws', () => {
    const key = keyFromSeed(4);
    const keys = new Set(split(key, 100_000).map(({ k0, k1 }) => k1 * 2 ** 21 + (k0 >>> 11)));
    expect(keys.size).toBe(100_000);
    const drawn = randomInts(key, 2, 2 ** 32);
    expect(fold(key, 0)).not.toEqual({ k0: drawn[0], k1: drawn[1] });
  });

  it('splits into folds', () => {
    const key = keyFromSeed(5);
    expect(split(key, 3)).toEqual([fold(key, 0), fold(key, 1), fold(key, 2)]);
    expect(split(key, 0)).toEqual([]);
  });

  it('pins derived keys: changing them would change every published seed', () => {
    const key = keyFromSeed(42);
    expect([fold(key, 7), fold(key, 'noise'), fold(key, -7)]).toMatchInlineSnapshot(`
      [
        {
          "k0": 3653419779,
          "k1": 3577646653,
        },
        {
          "k0": 3353236926,
          "k1": 2752144515,
        },
        {
          "k0": 558373369,
          "k1": 1036967434,
        },
      ]
    `);
  });
});

describe('draws', () => {
  const key = fold(keyFromSeed(6), 'draws');
  const draws = {
    uniform: (count: number, offset?: number) => uniform(key, count, offset === undefined ? {} : { offset }),
    normal: (count: number, offset?: number) => normal(key, count, offset === undefined ? {} : { offset }),
    randomInts: (count: number, offset?: number) =>
      randomInts(key, count, 1_000_003, offset === undefined ? {} : { offset }),
  };

  it.each(Object.entries(draws))('%s: any part equals that part of the whole', (_, draw) => {
    const whole = draw(20_000);
    for (const [offset, count] of [
      [0, 0],
      [0, 1],
      [1, 1],
      [3, 2],
      [4095, 2],
      [4093, 8200],
      [5, 4096],
      [8192, 4096],
      [19_999, 1],
    ] as const) {
      expect(draw(count, offset)).toEqual(whole.slice(offset, offset + count));
    }
  });

  it.each(Object.entries(draws))('%s: goes on past 2^32 blocks, and does not repeat', (_, draw) => {
    const edge = 2 ** 34; // words; draws of integers take two
    const across = draw(64, edge / 2 - 32);
    expect(draw(32, edge / 2)).toEqual(across.slice(32));
    expect(draw(32, edge)).toEqual(draw(64, edge - 32).slice(32));
    expect(draw(32, edge)).not.toEqual(draw(32));
    expect(draw(32, edge / 2)).not.toEqual(draw(32));
  });

  it.each(Object.entries(draws))('%s: refuses counts and offsets that are no such thing', (_, draw) => {
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 32]) expect(() => draw(bad)).toThrow('count:');
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => draw(1, bad)).toThrow('offset:');
  });

  it('pins the bits: a seed must give the same video for ever', () => {
    expect([
      sha(uniform(key, 100_000)),
      sha(normal(key, 100_000)),
      sha(randomInts(key, 100_000, 1000)),
      sha(permutation(key, 10_000)),
    ]).toMatchInlineSnapshot(`
      [
        "a159cafb46fe924eef5f34473c5cb4edc6b9ad4c329292bcc627838d7df8f963",
        "18605fef8bf7143384b58eb4291bfd2df923cdc73a2359f1e9b80d46252b7ddb",
        "14af6c7580a694fbfb612f876f07dc6bc8acff793298d21bb2161d8932dc2443",
        "5b96381a39040c68f200f7b4db937787e69c2a66767fe5e127f5700f96558e27",
      ]
    `);
  });

  it('makes normals from the definition of Box and Muller', () => {
    const n = 200_000;
    const normals = normal(key, n);
    const words = (i: number) => philox4x32([i >>> 2, 0, 0, 0], key)[i % 4]!;
    let worst = 0;
    for (let i = 0; i < n; i += 2) {
      const radius = Math.sqrt(-2 * Math.log((words(i) + 0.5) / 2 ** 32));
      const angle = (2 * Math.PI * words(i + 1)) / 2 ** 32;
      worst = Math.max(
        worst,
        Math.abs(normals[i]! - radius * Math.cos(angle)),
        Math.abs(normals[i + 1]! - radius * Math.sin(angle)),
      );
    }
    // Half a float32 step at the largest magnitudes seen (4 to 8), and nothing else.
    expect(worst).toBeLessThanOrEqual(2 ** -22 + 1e-14);
  });

  it('is uniform in [0, 1): 256 cells by chi-square, no element out of range', () => {
    const n = 1_000_000;
    const cells = new Float64Array(256);
    let outside = 0;
    for (const x of uniform(key, n)) {
      if (!(x >= 0 && x < 1 && Number.isInteger(x * 2 ** 24))) outside++;
      else cells[Math.floor(x * 256)]! += 1;
    }
    expect(outside).toBe(0);
    const chi = cells.reduce((sum, c) => sum + (c - n / 256) ** 2 / (n / 256), 0);
    // 255 degrees of freedom: mean 255, deviation 22.6; five deviations either way.
    expect(chi).toBeGreaterThan(142);
    expect(chi).toBeLessThan(368);
  });

  it('has the moments of a standard normal, and neighbours do not correlate', () => {
    const n = 1_000_000;
    const x = normal(key, n);
    const mean = (f: (i: number) => number) => {
      let sum = 0;
      for (let i = 0; i < n - 8; i++) sum += f(i);
      return sum / (n - 8);
    };
    // Five standard errors: sqrt(1, 2, 15, 96) / 1000 each.
    expect(Math.abs(mean((i) => x[i]!))).toBeLessThan(0.005);
    expect(Math.abs(mean((i) => x[i]! ** 2) - 1)).toBeLessThan(0.0071);
    expect(Math.abs(mean((i) => x[i]! ** 3))).toBeLessThan(0.0194);
    expect(Math.abs(mean((i) => x[i]! ** 4) - 3)).toBeLessThan(0.049);
    for (const lag of [1, 2, 3, 4, 8]) expect(Math.abs(mean((i) => x[i]! * x[i + lag]!))).toBeLessThan(0.005);
  });

  it('draws integers over all of [0, bound), bounds up to 2^32', () => {
    const counts = new Float64Array(7);
    for (const v of randomInts(key, 70_000, 7)) counts[v]! += 1;
    for (const c of counts) expect(Math.abs(c - 10_000)).toBeLessThan(5 * Math.sqrt(10_000));
    expect(new Set(randomInts(key, 100, 1))).toEqual(new Set([0]));
    const large = randomInts(key, 1000, 2 ** 32);
    expect(large.some((v) => v > 2 ** 31)).toBe(true);
    for (const bad of [0, -1, 1.5, 2 ** 32 + 1, Number.NaN])
      expect(() => randomInts(key, 1, bad)).toThrow('bound:');
  });

  it('permutes: every order of 4 as likely, each element once', () => {
    for (const n of [0, 1, 2, 5000])
      expect([...permutation(key, n)].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
    const counts = new Map<string, number>();
    for (const child of split(key, 24_000)) {
      const order = permutation(child, 4).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    for (const c of counts.values()) expect(Math.abs(c - 1000)).toBeLessThan(5 * Math.sqrt(1000));
  });
});

describe('RandomStream', () => {
  const key = fold(keyFromSeed(7), 'stream');
  const spend = (s: RandomStream) => [
    s.uniform(),
    s.int(10),
    s.normal(),
    s.pick(['a', 'b', 'c']),
    s.uniform(-2, 2),
    s.shuffle([1, 2, 3, 4]),
  ];

  it('resumes anywhere from its position alone', () => {
    for (const position of [0, 1, 2, 7]) {
      const first = new RandomStream(key, position);
      spend(first);
      const resumed = new RandomStream(key, JSON.parse(JSON.stringify(first.position)));
      expect(spend(resumed)).toEqual(spend(first));
      expect(resumed.position).toBe(first.position);
    }
    const stream = new RandomStream(key);
    const run = spend(stream);
    stream.position = 0;
    expect(spend(stream)).toEqual(run);
  });

  it('takes one draw for each scalar', () => {
    const stream = new RandomStream(key);
    spend(stream);
    expect(stream.position).toBe(5 + 3);
  });

  it('draws the integers of randomInts and the cosine normals of normal', () => {
    const stream = new RandomStream(key);
    expect(Array.from({ length: 9 }, () => stream.int(1000))).toEqual([...randomInts(key, 9, 1000)]);
    stream.position = 3;
    expect(stream.normal()).toBe(normal(key, 8)[6]);
    expect(new RandomStream(key, 3).normal(10, 2)).toBe(10 + 2 * normal(key, 8)[6]!);
  });

  it('keeps its ranges', () => {
    const stream = new RandomStream(key);
    for (let i = 0; i < 1000; i++) {
      const x = stream.uniform(3, 5);
      expect(x >= 3 && x < 5).toBe(true);
      expect([0, 1, 2]).toContain(stream.int(3));
    }
    expect(() => stream.pick([])).toThrow('the list is empty');
    expect(() => stream.int(0)).toThrow('bound:');
    expect(() => new RandomStream(key, -1)).toThrow('offset:');
  });
});
