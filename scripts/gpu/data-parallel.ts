/**
 * `node scripts/gpu/data-parallel.ts [--part speed|curve|all] [--gpus 1,2,4,8] [--cases micro,small,base] [--steps 50]
 * [--precision tf32] [--buckets 32,all] [--shard]`: training on several GPUs of this machine, a process each, batches of random
 * numbers. With `--shard` by AdamW, whose moments are divided among them, else by Muon.
 *
 * `speed`: tokens a second of each case on each number of GPUs, and how many times that of one GPU, with gradients exchanged
 * in buckets of so many MiB each: `all` is one, after the backward pass.
 * `curve`: the losses of 2 GPUs beside those of 1 GPU that takes both batches as one; after step 10 process 0 does something
 * that the other one does not. Ends with code 1 when losses differ by more than a hundredth.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { LatentCache } from '../../src/data/latent-cache.ts';
import type { Precision } from '../../src/executors/executor.ts';
import { gpuCount } from '../../src/executors/nvidia/device.ts';
import type { NvidiaExecutor } from '../../src/executors/nvidia/nvidia-executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import {
  type TimeHeightWidth,
  type TransformerPreset,
  transformerPresets,
} from '../../src/models/transformer/config.ts';
import { layoutSequence } from '../../src/models/transformer/sequence.ts';
import { joinProcesses } from '../../src/processes/join.ts';
import { launchOf } from '../../src/processes/launch.ts';
import { endWithSupervisor, report, supervise } from '../../src/processes/supervise.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { matmul } from '../../src/tensor/functions.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';
import type { Batch } from '../../src/training/batch.ts';
import { DeviceState } from '../../src/training/device-state.ts';
import { readTransformerRecipe, type TransformerRecipe } from '../../src/training/recipe.ts';
import { initialTrainingState } from '../../src/training/step.ts';
import { transformerPlanner, transformerTraining } from '../../src/training/transformer-task.ts';

interface Case {
  readonly preset: TransformerPreset;
  readonly rows: number;
  readonly video: number;
  readonly grid: TimeHeightWidth;
}

const cases: Readonly<Record<string, Case>> = {
  micro: { preset: 'micro', rows: 8, video: 1008, grid: [7, 8, 8] },
  small: { preset: 'small', rows: 8, video: 4096, grid: [16, 16, 16] },
  base: { preset: 'base', rows: 2, video: 4096, grid: [16, 16, 16] },
};

const { values } = parseArgs({
  options: {
    part: { type: 'string', default: 'all' },
    gpus: { type: 'string', default: '1,2,4,8' },
    cases: { type: 'string', default: 'micro,small,base' },
    steps: { type: 'string', default: '50' },
    precision: { type: 'string', default: 'tf32' },
    buckets: { type: 'string', default: '32' },
    shard: { type: 'boolean', default: false },
    /** Given to the processes: what to do, for which case, and where to write what was found. */
    role: { type: 'string' },
    result: { type: 'string', default: '' },
  },
});
const precision = values.precision as Precision;
const recipe = await readTransformerRecipe(join(import.meta.dirname, '../../recipes/micro/transformer.json'));
const warmup = 5;

if (values.role === undefined) await measure();
else await work(values.role);

async function measure(): Promise<void> {
  const counts = values.gpus
    .split(',')
    .map(Number)
    .filter((count) => count <= gpuCount());
  if (values.part !== 'speed') await compareCurves();
  if (values.part === 'curve') return;
  for (const name of values.cases.split(',')) {
    let one: number | undefined;
    for (const count of counts) {
      for (const bucket of count === 1 ? ['32'] : values.buckets.split(',')) {
        const [milliseconds = Number.NaN, tokens = 0] = await inProcesses(count, 'speed', name, bucket);
        const rate = (1000 * count * tokens) / milliseconds;
        one ??= rate / count;
        const figures = `${milliseconds.toFixed(2)} ms a step, ${(rate / 1e6).toFixed(3)} million tokens/s`;
        const how = count === 1 ? '1 GPU' : `${count} GPUs, buckets of ${bucket} MiB`;
        console.log(`${name}, ${how}: ${figures}, ${(rate / one).toFixed(2)} times one GPU`);
      }
    }
  }
}

async function compareCurves(): Promise<void> {
  const whole = await inProcesses(1, 'curve', 'micro');
  for (const bucket of values.buckets.split(',')) {
    const shared = await inProcesses(2, 'curve', 'micro', bucket);
    const difference = (i: number) => Math.abs((shared[i] ?? Number.NaN) / (whole[i] ?? 0) - 1);
    for (const [i, loss] of whole.entries())
      if (i < 3 || i % 10 === 9)
        console.log(
          `step ${i + 1}: loss ${loss} on 1 GPU, ${shared[i]} on 2, apart by ${difference(i).toExponential(1)}`,
        );
    const most = whole.length === 0 ? Number.NaN : Math.max(...whole.map((_, i) => difference(i)));
    const how = `${whole.length} steps in ${precision}, buckets of ${bucket} MiB`;
    console.log(`${how}: losses differ by ${most.toExponential(1)} at most`);
    if (!(most < 0.01)) process.exitCode = 1;
  }
}

/** Runs this script as several processes, and gives the numbers that the first one found. */
async function inProcesses(
  count: number,
  role: string,
  name: string,
  bucket = '32',
): Promise<readonly number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-gpus-'));
  const result = join(folder, 'result.json');
  const given = ['--role', role, '--cases', name, '--result', result];
  const chosen = ['--steps', values.steps, '--precision', precision, '--buckets', bucket];
  const shard = values.shard ? ['--shard'] : [];
  const args = [import.meta.filename, ...given, ...chosen, ...shard];
  const { signal } = new AbortController();
  const { code, problem } = await supervise({ args, count, signal, patience: 60_000 });
  const found = code === 0 ? (JSON.parse(readFileSync(result, 'utf8')) as number[]) : [];
  rmSync(folder, { recursive: true });
  if (code !== 0) console.log(`${role} of ${name} on ${count} GPUs: ${problem ?? `ended with code ${code}`}`);
  return found;
}

/** What one process does. */
async function work(role: string): Promise<void> {
  const name = values.cases;
  const chosen = cases[name];
  if (chosen === undefined) throw new Error(`there is no case ${name}`);
  endWithSupervisor();
  const launch = launchOf(process.env);
  const [rank, world] = [launch?.rank ?? 0, launch?.world ?? 1];
  await using processes = launch && (await joinProcesses(launch));
  const bucketBytes = values.buckets === 'all' ? Number.POSITIVE_INFINITY : Number(values.buckets) * 2 ** 20;
  await using executor = await openNvidiaExecutor({ device: rank, processes, precision, bucketBytes });
  const batchesEach = role === 'curve' && world === 1 ? 2 : 1;
  const own: TransformerRecipe = {
    ...recipe,
    preset: chosen.preset,
    budget: { ...recipe.budget, rows: chosen.rows * batchesEach, video: chosen.video },
    optimizer: { ...recipe.optimizer, warmup: 5, ...(values.shard && { method: 'adamw' as const }) },
  };
  const config = { ...transformerPresets[chosen.preset], ...recipe.overrides };
  const model = transformerTraining(config);
  const { variants } = transformerPlanner(config, own, { header: { clips: 1 } } as LatentCache);
  const [[variant, types] = ['', {}]] = [...variants];
  const start = performance.now();
  const initial = initialTrainingState(model, 1);
  const share = values.shard ? processes : undefined;
  using state = await DeviceState.open(executor, model, own, variants, initial, world, share);
  if (rank === 0) {
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${executor.device.name}, ${world} of them: ${name} compiled in ${seconds} s`);
  }
  const batchOf = (step: number): Batch => {
    const numbers = Array.from(
      { length: batchesEach },
      (_, i) => (step - 1) * (batchesEach * world) + rank + i,
    );
    return { variant, values: randomBatch(types, chosen, config, numbers, role === 'curve'), facts: {} };
  };
  const found: number[] = [];
  if (role === 'curve') {
    for (let step = 1; step <= Number(values.steps); step++) {
      const { loss = Number.NaN } = await (await state.start(step, batchOf(step))).read();
      found.push(loss);
      report({ kind: 'step', step });
      if (step === 10 && world > 1) await (rank === 0 ? disturb(executor, state) : state.helpDownload());
    }
  } else {
    const batch = batchOf(1);
    // As the training loop does: a step is waited for when the next one was given.
    const run = async (steps: number) => {
      let last = await state.start(1, batch);
      for (let step = 2; step <= steps; step++) {
        const next = await state.start(step, batch);
        await last.read();
        report({ kind: 'step', step: step - 1 });
        last = next;
      }
      await last.read();
    };
    await run(warmup);
    await processes?.exchange(new Uint8Array());
    const begin = performance.now();
    await run(Number(values.steps));
    found.push((performance.now() - begin) / Number(values.steps), chosen.rows * chosen.video);
    const { free, total } = executor.device.memoryInfo();
    if (rank === 0) console.log(`${((total - free) / 2 ** 30).toFixed(2)} GiB of the GPU in use`);
  }
  report({ kind: 'rest' });
  if (rank === 0) writeFileSync(values.result, JSON.stringify(found));
  await processes?.exchange(new Uint8Array());
}

/**
 * What one process alone does between steps, as for checkpoints and samples: its memory is no longer laid out as that of the
 * others, and something ran that needs more than a step. The steps must go on all the same.
 */
async function disturb(executor: NvidiaExecutor, state: DeviceState): Promise<void> {
  await state.download();
  const side = 16384;
  const { graph } = trace(
    'a large graph',
    (x) => {
      const outer = matmul(x, x, { transposeB: true }); // [side, side]
      return [matmul(outer, outer).sum()];
    },
    { shape: [side, 1], dtype: 'f32' } as const,
  );
  using executable = await executor.compile(graph);
  using x = executor.upload(fromFloat32('f32', [side, 1], new Float32Array(side).fill(1e-3)));
  for (const result of await executor.run(executable, [x])) {
    await executor.download(result);
    result[Symbol.dispose]();
  }
}

/**
 * Random batches, one after the other along the rows. Where they are uneven, every second one is half empty, so that
 * batches do not count the same.
 */
function randomBatch(
  types: object,
  { rows, video, grid }: Case,
  config: Parameters<typeof layoutSequence>[0],
  numbers: readonly number[],
  isUneven: boolean,
): Batch['values'] {
  const samples = Math.floor(video / elementCount(grid));
  const timesteps = new Float32Array(elementCount(grid)).fill(0.5);
  const sample = { text: new Uint8Array(48).fill(97), grid, timesteps };
  const filled = (number: number) => (isUneven && number % 2 === 1 ? rows / 2 : rows);
  const laid = numbers.flatMap((number) =>
    Array.from({ length: rows }, (_, row) =>
      new Array<typeof sample>(row < filled(number) ? samples : 0).fill(sample),
    ),
  );
  const { text, segments } = recipe.budget;
  const budget = { rows: laid.length, videoTokens: video, textTokens: text, segments };
  const used = laid.map((row) => row.length * elementCount(grid));
  const isUsed = (index: number) => index % video < (used[Math.floor(index / video)] ?? 0);
  const draw = (name: string): HostTensor => {
    const { shape, dtype } = (types as Record<string, TensorType>)[name] as TensorType;
    const each = elementCount(shape) / numbers.length;
    const drawn = new Float32Array(elementCount(shape));
    numbers.forEach((number, i) => {
      drawn.set(normal(fold(fold(keyFromSeed(5), name), number), each), i * each);
    });
    return fromFloat32(dtype as 'f32', shape, drawn);
  };
  const tokens = (value: (index: number) => number) =>
    fromFloat32(
      'f32',
      [laid.length, video],
      Float32Array.from({ length: laid.length * video }, (_, i) => value(i)),
    );
  return {
    clean: draw('clean'),
    noise: draw('noise'),
    timesteps: tokens((index) => (isUsed(index) ? 0.5 : 0)),
    weights: tokens((index) => (isUsed(index) ? 1 : 0)),
    sequence: { ...layoutSequence(config, budget, laid) },
  };
}
