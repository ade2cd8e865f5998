/** Rates of the counter-based generator, in millions of elements per second: `npx node bench/random.ts`. */

import { keyFromSeed, normal, permutation, RandomStream, randomInts, uniform } from '../src/random/philox.ts';

const key = keyFromSeed(1);
const count = 5_000_000;
const stream = new RandomStream(key);
const draws: Readonly<Record<string, () => unknown>> = {
  uniform: () => uniform(key, count),
  normal: () => normal(key, count),
  randomInts: () => randomInts(key, count, 1000),
  permutation: () => permutation(key, count),
  'RandomStream.uniform': () => {
    for (let i = 0; i < count; i++) stream.uniform();
  },
  'RandomStream.normal': () => {
    for (let i = 0; i < count; i++) stream.normal();
  },
};

for (const [name, draw] of Object.entries(draws)) {
  draw();
  const times = Array.from({ length: 5 }, () => {
    const start = performance.now();
    draw();
    return performance.now() - start;
  });
  console.log(`${name}: ${(count / 1e3 / Math.min(...times)).toFixed(1)} M/s (best of 5)`);
}
