/**
 * `node bench/gpu/training-step.ts [autoencoder|transformer] [recipe] [rows]`: milliseconds of a training step on this
 * machine's GPU, first of whole steps back to back, then of each of its kernels and library calls, the longest first.
 * Batches are of random numbers, so that nothing but the step is measured.
 */

import type { LatentCache } from '../../src/data/latent-cache.ts';
import type { DeviceBuffer } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { transformerPresets } from '../../src/models/transformer/config.ts';
import { layoutSequence } from '../../src/models/transformer/sequence.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, zeros } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { leaves, mapTree } from '../../src/tensor/tree.ts';
import {
  autoencoderConfigOf,
  autoencoderPlanner,
  autoencoderTraining,
} from '../../src/training/autoencoder-task.ts';
import { readAutoencoderRecipe, readTransformerRecipe } from '../../src/training/recipe.ts';
import { initialTrainingState, stepNumbers, traceStep } from '../../src/training/step.ts';
import { transformerPlanner, transformerTraining } from '../../src/training/transformer-task.ts';

const [kind = 'transformer', file = `recipes/micro/${kind}.json`, shown = '40'] = process.argv.slice(2);
const steps = 20;

async function prepared() {
  if (kind === 'autoencoder') {
    const recipe = await readAutoencoderRecipe(file);
    const config = autoencoderConfigOf(recipe, file);
    const types = [...autoencoderPlanner(config, recipe).variants];
    return { recipe, model: autoencoderTraining(config, recipe), types, sequence: {} };
  }
  const recipe = await readTransformerRecipe(file);
  const config = { ...transformerPresets[recipe.preset as 'micro'], ...recipe.overrides };
  const { rows, video: videoTokens, text: textTokens, segments } = recipe.budget;
  const samples = Array.from({ length: Math.floor(videoTokens / 448) }, () => ({
    text: new Uint8Array(48).fill(97),
    grid: [7, 8, 8] as const,
  }));
  const sequence = layoutSequence(
    config,
    { rows, videoTokens, textTokens, segments },
    Array.from({ length: rows }, () => samples),
  );
  const clips = { header: { clips: 1 } } as LatentCache;
  const types = [...transformerPlanner(config, recipe, clips).variants];
  return { recipe, model: transformerTraining(config), types, sequence: { sequence } };
}

const { recipe, model, types, sequence } = await prepared();
await using executor = await openNvidiaExecutor();
console.log(`${executor.name} on ${executor.device.name}`);
for (const [variant, batch] of types) {
  const start = performance.now();
  const { graph, donate } = traceStep(model, batch, recipe);
  const executable = await executor.compile(graph, { donate });
  console.log(`${variant}: compiled in ${((performance.now() - start) / 1000).toFixed(2)} s`);
  const random = mapTree(batch, (leaf, path) => randomTensor(leaf as TensorType, path));
  const values = leaves({ ...random, ...sequence }) as HostTensor[];
  const given = [...values, stepNumbers(recipe, 1)].map((tensor) => executor.upload(tensor));
  let state = (leaves(initialTrainingState(model, 0)) as HostTensor[]).map((tensor) =>
    executor.upload(tensor),
  );
  const run = async () => {
    const [metrics, ...next] = (await executor.run(executable, [...state, ...given])) as DeviceBuffer[];
    state = next;
    metrics?.[Symbol.dispose]();
  };
  for (let i = 0; i < 3; i++) await run();
  executor.device.synchronize();
  const begin = performance.now();
  for (let i = 0; i < steps; i++) await run();
  executor.device.synchronize();
  console.log(`${variant}: ${((performance.now() - begin) / steps).toFixed(2)} ms a step`);
  report(executor.profile(executable));
  for (const buffer of [...state, ...given]) buffer[Symbol.dispose]();
  executable[Symbol.dispose]();
  if (kind === 'autoencoder' && process.argv[5] !== 'all') break;
}

function randomTensor({ shape, dtype }: TensorType, path: string): HostTensor {
  if (dtype !== 'f32' && dtype !== 'f16') return zeros(dtype, shape);
  return fromFloat32(dtype, shape, normal(keyFromSeed(path.length), elementCount(shape)));
}

function report(times: readonly { readonly name: string; readonly milliseconds: number }[]): void {
  const groups = new Map<string, { count: number; total: number }>();
  for (const { name, milliseconds } of times) {
    const group = groups.get(name) ?? { count: 0, total: 0 };
    groups.set(name, { count: group.count + 1, total: group.total + milliseconds });
  }
  const total = times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  console.log(`${total.toFixed(2)} ms in ${times.length} launches one by one`);
  const rows = [...groups].sort(([, a], [, b]) => b.total - a.total).slice(0, Number(shown));
  for (const [name, { count, total: sum }] of rows)
    console.log(`${sum.toFixed(3).padStart(8)} ms ${String(count).padStart(4)} x ${name}`);
}
