/**
 * `node bench/gpu/attention.ts [forward|gradient|all|odd] [plans]`: milliseconds and TFLOP/s of attention by cuDNN on this
 * machine's GPU, in one run and cut in the ways that the executor knows; a star is on what it chooses. Medians of
 * rounds in turns. The last column is the largest difference from the first line's last results, relative to their largest
 * value. `plans`: how many of cuDNN's plans of one run; default 1, all that is worth comparing 4. `odd`: small sizes that
 * fill no tiles, to be run under compute-sanitizer, since each tensor has memory of its own here.
 */

import { openCudnn } from '../../src/executors/nvidia/bindings/cudnn.ts';
import { Device } from '../../src/executors/nvidia/device.ts';
import { KernelCache } from '../../src/executors/nvidia/kernel-cache.ts';
import { type AttentionContext, forwardCall } from '../../src/executors/nvidia/library/attention.ts';
import { fastestSplits } from '../../src/executors/nvidia/library/attention-splits.ts';
import { KeptPlans } from '../../src/executors/nvidia/library/kept-plans.ts';
import { prelude } from '../../src/executors/nvidia/plain/prelude.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { bytesOf, fromFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import {
  forwardVariants,
  gradientVariants,
  type Measurement,
  measure,
  type Variant,
} from './attention-variants.ts';

type Sizes = readonly [rows: number, queries: number, keys: number, heads: number, headSize: number];

const forwards: readonly Sizes[] = [
  // Self-attention of wan, what its keys are cut into, and whole tiles.
  [1, 32760, 32760, 12, 128],
  [1, 32760, 32640, 12, 128],
  [1, 32760, 120, 12, 128],
  [1, 32768, 32768, 12, 128],
  // From how many keys on cutting them pays.
  [1, 24568, 24568, 12, 128],
  [1, 16376, 16376, 9, 128],
  [1, 16384, 16384, 9, 128],
  // Cross-attention: the queries of wan, its whole tiles, the rest, and one tile more.
  [1, 32760, 512, 12, 128],
  [1, 32640, 512, 12, 128],
  [1, 120, 512, 12, 128],
  [1, 32768, 512, 12, 128],
  [1, 16384, 512, 9, 128],
];
const gradients: readonly Sizes[] = [
  [1, 16384, 512, 9, 128],
  [1, 16384, 512, 18, 64],
  [1, 32768, 512, 12, 128],
  [1, 16384, 16384, 9, 128],
  [1, 16376, 16376, 9, 128],
  [1, 16384, 16384, 18, 64],
];

const odd: readonly Sizes[] = [
  [1, 13, 9, 4, 128],
  [2, 77, 200, 8, 64],
  [1, 2048, 130, 2, 128],
  [2, 5, 24_676, 2, 128],
];

const [what = 'all', plans = '1'] = process.argv.slice(2);
const device = new Device();
const kernels = new KernelCache(device, prelude);
const cudnn = openCudnn(device.stream);
const kept = new KeptPlans(device.name, cudnn.version);
const noise = bytesOf(fromFloat32('bf16', [1 << 20], normal(keyFromSeed(1), 1 << 20)));
console.log(`${device.name}, ${device.multiprocessors} multiprocessors`);
const [forwardSizes, gradientSizes] = what === 'odd' ? [odd, odd] : [forwards, gradients];
if (what !== 'gradient') for (const sizes of forwardSizes) await benchForward(sizes);
if (what !== 'forward') for (const sizes of gradientSizes) await benchGradient(sizes);
kernels.dispose();
device.dispose();

async function benchForward(sizes: Sizes): Promise<void> {
  const { tokens, statistics, problem } = typesOf(sizes);
  const inputs = [tokens.q, tokens.k, tokens.k].map(upload);
  await report('forward', 4, sizes, forwardVariants(newContext(), problem, Number(plans)), inputs, [
    tokens.q,
    statistics,
  ]);
  for (const address of inputs) device.memory.release(address);
}

async function benchGradient(sizes: Sizes): Promise<void> {
  const { tokens, statistics, problem } = typesOf(sizes);
  const [q, k, v, y, logSum, dy] = [tokens.q, tokens.k, tokens.k, tokens.q, statistics, tokens.q].map(
    upload,
  ) as [bigint, bigint, bigint, bigint, bigint, bigint];
  const forward = forwardCall(newContext(), problem, { q: 'bf16', k: 'bf16', v: 'bf16', y: 'bf16' });
  const scratch = forward.scratch.map((bytes) => device.memory.allocate(bytes));
  for (const launch of forward.bind({ inputs: [q, k, v], outputs: [y, logSum], scratch })) launch();
  const inputs = [q, k, v, y, logSum, dy];
  await report('gradient', 10, sizes, gradientVariants(newContext(), problem, Number(plans)), inputs, [
    tokens.q,
    tokens.k,
    tokens.k,
  ]);
  for (const address of [...inputs, ...scratch]) device.memory.release(address);
}

async function report(
  name: string,
  factor: number,
  [rows, queries, keys, heads, headSize]: Sizes,
  variants: readonly Variant[],
  inputs: readonly bigint[],
  results: readonly TensorType[],
): Promise<void> {
  console.log(`${name}, ${rows} x ${queries} queries, ${keys} keys, ${heads} heads of ${headSize}`);
  const operations = factor * rows * queries * keys * heads * headSize;
  const line = ({ name, isChosen, milliseconds, difference }: Measurement) =>
    [
      isChosen ? ' *' : '  ',
      name.padEnd(24),
      `${milliseconds.toFixed(3).padStart(8)} ms`,
      `${(operations / milliseconds / 1e9).toFixed(0).padStart(4)} TFLOP/s`,
      difference.toExponential(1),
    ].join(' ');
  for (const measurement of await measure(device, kernels, variants, inputs, results))
    console.log(line(measurement));
}

function typesOf([rows, queries, keys, heads, headSize]: Sizes) {
  const tokens = (count: number): TensorType => ({ shape: [rows, count, heads, headSize], dtype: 'bf16' });
  const statistics: TensorType = { shape: [rows, heads, queries], dtype: 'f32' };
  const scale = headSize ** -0.5;
  const problem = { rows, queries, keys, heads, headSize, segments: undefined, scale };
  return { tokens: { q: tokens(queries), k: tokens(keys) }, statistics, problem };
}

function newContext(): AttentionContext {
  const splits = fastestSplits(device.multiprocessors);
  return { device, kernels, cudnn, kept, forwards: new Map(), backwards: new Map(), splits };
}

/** Memory with noise, of no use as f32. */
function upload({ shape, dtype }: TensorType, index: number): bigint {
  const bytes = elementCount(shape) * (dtype === 'bf16' ? 2 : 4);
  const memory = new Uint8Array(bytes);
  // Each operand begins elsewhere in the noise.
  for (let start = -(index * 131_072); start < bytes; start += noise.length)
    memory.set(noise.subarray(Math.max(0, -start), bytes - start), Math.max(0, start));
  const address = device.memory.allocate(bytes);
  const { driver, stream } = device;
  driver.check(driver.cuMemcpyHtoDAsync_v2(address, memory, bytes, stream), 'upload');
  device.synchronize();
  return address;
}
