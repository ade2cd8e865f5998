import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openExecutor } from '../../src/app.ts';
import type { Executor } from '../../src/executors/executor.ts';
import { writeModel } from '../../src/storage/model-file.ts';
import { type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { leaves } from '../../src/tensor/tree.ts';
import { newestCheckpoint, readCheckpoint } from '../../src/training/checkpoint.ts';
import { DeviceState } from '../../src/training/device-state.ts';
import { runPaths, train } from '../../src/training/loop.ts';
import { readMetrics } from '../../src/training/metrics.ts';
import { readStartingWeights } from '../../src/training/starting-weights.ts';
import { averageShare, initialTrainingState } from '../../src/training/step.ts';
import { tinyMaker, tinyModel, tinyRecipe, tinyRun } from './tiny.ts';

let executor: Executor;
let root: string;
beforeAll(async () => {
  // The reference keeps float64 between steps, which no checkpoint holds.
  executor = await openExecutor('cpu');
  root = await mkdtemp(join(tmpdir(), 'zoetrope-train-'));
});
afterAll(async () => {
  await executor[Symbol.asyncDispose]();
  await rm(root, { recursive: true });
});

const values = (tree: object) => (leaves(tree) as HostTensor[]).map((leaf) => [...toFloat32(leaf)]);
const losses = async (folder: string) =>
  (await readMetrics(runPaths(folder).metrics)).map(({ step, loss, gradientNorm }) => [
    step,
    loss,
    gradientNorm,
  ]);

it('goes on where it stopped, with the same curve and the same end', async () => {
  const whole = await train(tinyRun(executor, join(root, 'whole')));
  const folder = join(root, 'parts');
  await train({ ...tinyRun(executor, folder), until: 3 });
  // As a killed process leaves it: a line of a step after the checkpoint, and half a line.
  await writeFile(runPaths(folder).metrics, '{"step":4,"loss":123}\n{"step":5,"lo', { flag: 'a' });
  const parts = await train({ ...tinyRun(executor, folder), resume: true });
  expect(parts.step).toBe(8);
  expect(await losses(folder)).toEqual(await losses(join(root, 'whole')));
  expect(values(parts.state)).toEqual(values(whole.state));
  expect(await readdir(runPaths(folder).checkpoints)).toEqual([
    'step-00000006.safetensors',
    'step-00000008.safetensors',
  ]);
});

it('refuses a folder that holds another training, and to begin over one', async () => {
  const folder = join(root, 'whole');
  await expect(train(tinyRun(executor, folder))).rejects.toThrow('holds a training already');
  const other = { kind: 'transformer', recipe: 'other', data: '', from: '' };
  await expect(train({ ...tinyRun(executor, folder), resume: true, identity: other })).rejects.toThrow(
    'was made with another recipe (tiny, now other)',
  );
});

it('begins with the weights of a model file, and resumes with those alone', async () => {
  const { state } = await train(tinyRun(executor, join(root, 'earlier')));
  const path = join(root, 'earlier.safetensors');
  await writeModel(path, { kind: 'transformer', config: {}, parameters: state.average });
  const from = await readStartingWeights(path, tinyModel);
  expect(values(from.parameters)).toEqual(values(state.average));

  const folder = join(root, 'later');
  const own = tinyRun(executor, folder);
  const run = { ...own, from, identity: { ...own.identity, from: from.digest }, until: 2 };
  await train(run);
  const [first, fresh] = [(await losses(folder))[0]!, (await losses(join(root, 'earlier')))[0]!];
  expect(first[1]).not.toBe(fresh[1]);
  const begin = initialTrainingState(tinyModel, tinyRecipe.seed, from.parameters);
  using device = await DeviceState.open(executor, tinyModel, tinyRecipe, own.planner.variants, begin);
  const batch = await tinyMaker()(own.planner.plan(1, 0).plan);
  expect((await (await device.start(1, batch)).read()).loss).toBe(first[1]);
  await expect(train({ ...own, resume: true })).rejects.toThrow('was made with another from');
});

it('stopped by a signal it finishes the step and writes a checkpoint', async () => {
  const folder = join(root, 'stopped');
  const controller = new AbortController();
  const stopAt = (step: number) => {
    if (step === 3) controller.abort();
  };
  const run = { ...tinyRun(executor, folder), signal: controller.signal, onStep: stopAt };
  const { complete, step } = await train(run);
  expect(complete).toBe(false);
  expect(await newestCheckpoint(runPaths(folder).checkpoints)).toContain(String(step));
  expect((await losses(folder)).length).toBe(step);
});

it('stops at a loss that is not finite, names step and layer, and keeps the last good checkpoint', async () => {
  const folder = join(root, 'bad');
  const error = await train(tinyRun(executor, folder, { badStep: 5 })).catch((caught: Error) => caught);
  expect((error as Error).message).toMatch(
    /^step 5: the loss is (?:Infinity|NaN), first in layer layers\.1, forward pass \(exp\); the last good checkpoint is .*step-00000004/,
  );
  const path = (await newestCheckpoint(runPaths(folder).checkpoints)) ?? '';
  const { state } = await readCheckpoint(path, tinyModel.spec, tinyRun(executor, folder).identity);
  expect(values(state).flat().every(Number.isFinite)).toBe(true);
});

it('a step that is not finite changes nothing, nor do those after it', async () => {
  const { planner } = tinyRun(executor, root);
  const initial = initialTrainingState(tinyModel, 3);
  using device = await DeviceState.open(executor, tinyModel, tinyRecipe, planner.variants, initial);
  for (const step of [1, 2]) {
    const batch = await tinyMaker({ badStep: 1 })(planner.plan(step, 0).plan);
    await (await device.start(step, batch)).read();
  }
  const after = await device.download();
  expect(values(after.parameters)).toEqual(values(initial.parameters));
  expect(values(after.moments)).toEqual(values(initial.moments));
  expect(values([after.alive])).toEqual([[0]]);
});

it('averages weights as the formula says', async () => {
  const { planner } = tinyRun(executor, root);
  const initial = initialTrainingState(tinyModel, 3);
  using device = await DeviceState.open(executor, tinyModel, tinyRecipe, planner.variants, initial);
  const expected = values(initial.parameters);
  for (let step = 1; step <= 5; step++) {
    await (await device.start(step, await tinyMaker()(planner.plan(step, 0).plan))).read();
    const now = values((await device.download()).parameters);
    const share = Math.min(0.6, (1 + step) / (10 + step));
    expect(averageShare(0.6, step)).toBe(share);
    for (const [i, leaf] of expected.entries())
      for (const [j, value] of leaf.entries()) leaf[j] = share * value + (1 - share) * now[i]![j]!;
  }
  const found = values((await device.download()).average);
  for (const [i, value] of found.flat().entries()) expect(value).toBeCloseTo(expected.flat()[i]!, 6);
});

it('reports in one file that asks for nothing else', async () => {
  const html = await readFile(runPaths(join(root, 'whole')).report, 'utf8');
  expect(html).toContain('loss');
  expect(html).toContain('Step 8');
  expect(html).toContain('<path');
  expect(html).not.toMatch(/https?:|src="(?!data:)|<script|<link|@import|url\(/);
});
