/**
 * How far the outputs of the precision fp8 are from those of bf16, on this machine's GPU: `node bench/gpu/fp8-error.ts
 * [options]`.
 *
 *   --case NAME       a forward pass of cases.ts; default wan
 *   --latents         of a video that the shipped model samples instead: its latent patches
 *   --steps N         of sampling; default 8
 *   --grid TxHxW      of its patches; default 7x16x16, which are more than 1,024 tokens: 25 frames of 128x128 pixels
 *   --dry             a dry run on the CPU, where both are the same
 *
 * Prints the peak signal-to-noise ratio, whose peak is the largest magnitude in the output of bf16, and the root of the
 * mean squared error relative to that of the output.
 */
import { parseArgs } from 'node:util';
import { type DeviceName, type DeviceOptions, loadModel, openExecutor } from '../../src/app.ts';
import { euler } from '../../src/diffusion/samplers.ts';
import type { Executor } from '../../src/executors/executor.ts';
import { patchChannels } from '../../src/models/transformer/config.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { toFloat32 } from '../../src/tensor/host-tensor.ts';
import { at } from '../../src/tensor/shape.ts';
import { type BenchCase, type CaseName, cases, tinyCase } from './cases.ts';
import { makeWork } from './work.ts';

const { values: options } = parseArgs({
  options: {
    case: { type: 'string', default: 'wan' },
    latents: { type: 'boolean', default: false },
    steps: { type: 'string', default: '8' },
    grid: { type: 'string', default: '7x16x16' },
    dry: { type: 'boolean', default: false },
  },
});

type Compared = 'bf16' | 'fp8';

const deviceOf = (precision: Compared): DeviceOptions & { readonly device: DeviceName } =>
  options.dry ? { device: 'cpu' } : { device: 'nvidia', precision };
const outputs: Float32Array[] = [];
for (const precision of ['bf16', 'fp8'] as const)
  outputs.push(await (options.latents ? sampled(precision) : forward(precision)));
report(at(outputs, 0), at(outputs, 1));

/** The output of a case. */
async function forward(precision: Compared): Promise<Float32Array> {
  const full: BenchCase | undefined = cases[options.case as CaseName];
  if (full?.work !== 'forward') throw new Error(`case ${options.case}: give a forward pass, such as wan`);
  const work = makeWork(options.dry ? tinyCase(full) : full, { weights: options.dry ? 'f32' : 'bf16' });
  const { device, ...rest } = deviceOf(precision);
  await using executor = await openExecutor(device, rest);
  const executable = await executor.compile(work.graph, { fixed: work.fixed });
  const [output] = await executor.run(
    executable,
    work.values.map((tensor) => executor.upload(tensor)),
  );
  if (output === undefined) throw new Error(`${options.case} has no output`);
  const values = toFloat32(await executor.download(output));
  await tell(executor);
  return values;
}

/** Patches of a video of the shipped model after some of Euler's steps from noise, which is the same each time. */
async function sampled(precision: Compared): Promise<Float32Array> {
  await using model = await loadModel('micro', deviceOf(precision));
  const [time = 0, height = 0, width = 0] = options.grid.split('x').map(Number);
  const tokens = time * height * width;
  using velocity = await model.field.under('a red ball bounces on green grass', [time, height, width]);
  const run = (patches: Float32Array, t: number) => velocity(patches, new Float32Array(tokens).fill(t));
  const noise = normal(keyFromSeed(1), tokens * patchChannels(model.config));
  const steps = Number(options.steps);
  const times = Array.from({ length: steps + 1 }, (_, step) => 1 - step / steps);
  const patches = await euler(run, noise, times);
  await tell(model.executor);
  return patches;
}

async function tell(executor: Executor): Promise<void> {
  const fallback = await executor.fallback?.();
  if (fallback !== undefined) console.log(`${executor.name} ${fallback}`);
}

function report(exact: Float32Array, found: Float32Array): void {
  let [peak, signal, noise] = [0, 0, 0];
  exact.forEach((value, i) => {
    peak = Math.max(peak, Math.abs(value));
    signal += value ** 2;
    noise += (value - (found[i] ?? Number.NaN)) ** 2;
  });
  const psnr = 10 * Math.log10((peak ** 2 * exact.length) / noise);
  console.log(
    `${options.latents ? 'latents of micro' : options.case}: fp8 against bf16 ${psnr.toFixed(2)} dB, peak ${peak.toPrecision(4)} the largest of ` +
      `${exact.length} values, error ${(100 * Math.sqrt(noise / signal)).toFixed(2)}% of the root mean square`,
  );
}
