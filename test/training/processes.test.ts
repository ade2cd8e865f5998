import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flowLoss } from '../../src/diffusion/flow.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { linear, linearSpec } from '../../src/nn/linear.ts';
import type { Parameters } from '../../src/nn/parameters.ts';
import { fold, keyFromSeed, normal, RandomStream } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount, type Shape } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { leaves } from '../../src/tensor/tree.ts';
import type { Batch, BatchPlanner } from '../../src/training/batch.ts';
import { newestCheckpoint, readCheckpoint } from '../../src/training/checkpoint.ts';
import { DeviceState } from '../../src/training/device-state.ts';
import { runPaths, type TrainingRun, train } from '../../src/training/loop.ts';
import { readMetrics } from '../../src/training/metrics.ts';
import { sharedPlanner } from '../../src/training/shared-planner.ts';
import { initialTrainingState, type TrainingModel, type TrainingState } from '../../src/training/step.ts';
import { groupsOf } from '../processes/groups.ts';
import { type TinyOptions, tinyModel, tinyRecipe, tinyRun } from './tiny.ts';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'zoetrope-processes-'));
});
afterAll(() => rm(root, { recursive: true }));

const values = (tree: object) => (leaves(tree) as HostTensor[]).map((leaf) => [...toFloat32(leaf)]);

describe('plans of several processes', () => {
  const planner: BatchPlanner = {
    variants: new Map(),
    // Batches of different sizes, as packing makes them.
    plan: (step, position) => {
      const clips = Array.from({ length: 1 + ((7 * position) % 5) }, (_, i) => [position + i]);
      return {
        plan: { step, number: step, variant: `v${step % 3}`, clips },
        position: position + clips.length,
      };
    },
  };

  it('are together those of one, whatever their number', () => {
    for (const world of [1, 2, 3, 8]) {
      const shares = Array.from({ length: world }, (_, rank) => sharedPlanner(planner, { rank, world }));
      let [position, alone] = [0, 0];
      for (let step = 1; step <= 6; step++) {
        const planned = shares.map((share) => share.plan(step, position));
        for (const [rank, { plan }] of planned.entries()) {
          const expected = planner.plan(step, alone);
          alone = expected.position;
          expect(plan).toEqual({ ...expected.plan, number: (step - 1) * world + rank + 1 });
        }
        expect(new Set(planned.map((one) => one.position))).toEqual(new Set([alone]));
        position = alone;
      }
    }
  });
});

const spec = { layer: linearSpec(4, 4) };
const sizes = { clean: [2, 5, 4], noise: [2, 5, 4], timesteps: [2, 5], weights: [2, 5] };

/** A flow of one layer. */
const flowModel: TrainingModel = {
  kind: 'transformer',
  config: {},
  spec,
  loss: (parameters, batch) => {
    const { layer } = parameters as Parameters<typeof spec>;
    const flow = batch as Record<keyof typeof sizes, Tensor>;
    const velocity = (patches: Tensor, timesteps: Tensor) =>
      linear(layer, patches).add(timesteps.reshape([...timesteps.shape, 1]));
    const { loss, errors } = flowLoss(velocity, flow);
    const weight = flow.weights.sum();
    return { loss, weight, terms: { doubled: errors.mul(flow.weights).sum().div(weight.maximum(1)).mul(2) } };
  },
};

/** Batch `number`, of which some tokens count; of batch 4 none does. */
function flowBatch(number: number): Record<keyof typeof sizes, HostTensor> {
  const draw = (shape: readonly number[], name: string) =>
    fromFloat32('f32', shape, normal(fold(fold(keyFromSeed(9), number), name), elementCount(shape)));
  const random = new RandomStream(fold(keyFromSeed(10), number));
  const counts = Float32Array.from({ length: 10 }, () =>
    number !== 4 && random.uniform(0, 1) < 0.2 * number ? 1 : 0,
  );
  return {
    clean: draw(sizes.clean, 'clean'),
    noise: draw(sizes.noise, 'noise'),
    timesteps: fromFloat32(
      'f32',
      sizes.timesteps,
      counts.map((one) => one * random.uniform(0, 1)),
    ),
    weights: fromFloat32('f32', sizes.weights, counts),
  };
}

/** Batches as one, along their first axis. */
function joined(batches: readonly Record<string, HostTensor>[]): Record<string, HostTensor> {
  return Object.fromEntries(
    Object.keys(sizes).map((name) => {
      const parts = batches.map((batch) => batch[name]!);
      const data = parts.flatMap((part) => [...toFloat32(part)]);
      const shape = [2 * parts.length, ...parts[0]!.shape.slice(1)];
      return [name, fromFloat32('f32', shape, Float32Array.from(data))];
    }),
  );
}

const typesOf = (world: number) => {
  const types = Object.entries(sizes).map(([name, [rows = 0, ...rest]]) => [
    name,
    { shape: [rows * world, ...rest], dtype: 'f32' },
  ]);
  return new Map([['x', Object.fromEntries(types) as object]]);
};
const batchOf = (given: Record<string, HostTensor>): Batch => ({ variant: 'x', values: given, facts: {} });

describe('a step of several processes', () => {
  const cases = [
    { world: 2, shares: 'all of the moments' },
    { world: 3, shares: 'all of the moments' },
    { world: 2, shares: 'its part of the moments' },
    { world: 4, shares: 'its part of the moments' },
    // The layer has 4 rows: nothing is divided.
    { world: 3, shares: 'its part of the moments' },
  ];
  it.each(cases)(
    'is that of one with all batches of $world: loss, terms, norm and state; each has $shares',
    async ({ world, shares }) => {
      const isSharded = shares.startsWith('its');
      const recipe = { ...tinyRecipe, optimizer: { ...tinyRecipe.optimizer, maxNorm: 0.5, epsilon: 1e-3 } };
      const initial = initialTrainingState(flowModel, 3);
      const whole = await DeviceState.open(
        new ReferenceExecutor(),
        flowModel,
        recipe,
        typesOf(world),
        initial,
      );
      const groups = groupsOf(world);
      const parts = await Promise.all(
        groups.map((group) =>
          DeviceState.open(
            new ReferenceExecutor(group),
            flowModel,
            recipe,
            typesOf(1),
            initial,
            world,
            isSharded ? group : undefined,
          ),
        ),
      );
      const rows = isSharded && world !== 3 ? 4 / world : 4;
      for (const { buffers } of parts) {
        const { parameters, moments, average } = buffers as TrainingState<{ readonly shape: Shape }>;
        const shapeOf = (tree: object) =>
          (tree as { layer: { weight: { shape: Shape } } }).layer.weight.shape;
        expect([moments.mean, moments.square].map(shapeOf)).toEqual([
          [rows, 4],
          [rows, 4],
        ]);
        expect([parameters, average].map(shapeOf)).toEqual([
          [4, 4],
          [4, 4],
        ]);
      }
      for (let step = 1; step <= 3; step++) {
        const batches = groups.map(({ rank }) => flowBatch((step - 1) * world + rank + 1));
        const expected = await (await whole.start(step, batchOf(joined(batches)))).read();
        const found = await Promise.all(
          parts.map(async (part, rank) => (await part.start(step, batchOf(batches[rank]!), rank > 0)).read()),
        );
        for (const { stopping, ...metrics } of found) {
          expect(stopping).toBe(world - 1);
          expect(Object.keys(metrics)).toEqual(Object.keys(expected));
          for (const [name, value] of Object.entries(metrics)) expect(value).toBeCloseTo(expected[name]!, 6);
        }
      }
      const end = values(await whole.download());
      for (const own of (await Promise.all(parts.map((part) => part.download()))).map(values)) {
        for (const [i, leaf] of end.entries())
          for (const [j, value] of leaf.entries()) expect(own[i]![j]!).toBeCloseTo(value, 6);
      }
    },
  );
});

describe('training in two processes', () => {
  const runs = (folder: string, options?: TinyOptions): TrainingRun[] =>
    groupsOf(2).map((processes) => ({
      ...tinyRun(new ReferenceExecutor(processes), folder, options),
      processes,
    }));
  const curve = async (folder: string) =>
    (await readMetrics(runPaths(folder).metrics)).map(({ step, loss, gradientNorm }) => [
      step,
      loss,
      gradientNorm,
    ]);

  it('ends with one state, one set of files, and goes on where a signal to any of them stopped both', async () => {
    const whole = join(root, 'whole');
    const [first, second] = await Promise.all(runs(whole).map(train));
    expect(first!.step).toBe(8);
    expect(values(second!.state)).toEqual(values(first!.state));
    expect((await curve(whole)).length).toBe(8);

    const folder = join(root, 'parts');
    const controller = new AbortController();
    const onStep = (step: number) => {
      if (step === 2) controller.abort();
    };
    const stopped = await Promise.all(
      runs(folder).map((run, rank) =>
        train(rank === 1 ? { ...run, signal: controller.signal, onStep } : run),
      ),
    );
    expect(stopped.map(({ complete }) => complete)).toEqual([false, false]);
    expect(stopped[1]!.step).toBe(stopped[0]!.step);
    expect(await newestCheckpoint(runPaths(folder).checkpoints)).toContain(`${stopped[0]!.step}.safetensors`);
    const resumed = await Promise.all(runs(folder).map((run) => train({ ...run, resume: true })));
    expect(resumed[0]!.step).toBe(8);
    const [expected, found] = [await curve(whole), await curve(folder)];
    // The reference computes in float64, a checkpoint holds float32.
    for (const [i, line] of found.entries())
      for (const [j, value] of line.entries()) expect(value).toBeCloseTo(expected[i]![j]!, 5);
  });

  it('writes the same files where each has its part of the moments, and goes on from either', async () => {
    const [whole, divided] = [join(root, 'undivided'), join(root, 'divided')];
    const sharded = (folder: string, more: Partial<TrainingRun> = {}) =>
      Promise.all(runs(folder).map((run) => train({ ...run, ...more, isSharded: true })));
    await Promise.all(runs(whole).map((run) => train({ ...run, until: 4 })));
    await sharded(divided, { until: 4 });
    const read = async (folder: string) => {
      const path = (await newestCheckpoint(runPaths(folder).checkpoints))!;
      const { identity } = runs(folder)[0]!;
      return await readCheckpoint(path, tinyModel.spec, { ...identity, processes: 2 });
    };
    const expectAlike = async (step: number) => {
      const [expected, found] = [await read(whole), await read(divided)];
      expect([found.step, found.position]).toEqual([step, expected.position]);
      const exact = values(expected.state);
      for (const [i, leaf] of values(found.state).entries())
        for (const [j, value] of leaf.entries()) expect(value).toBeCloseTo(exact[i]![j]!, 6);
    };
    await expectAlike(4);
    // Each goes on in the other way.
    await Promise.all(runs(divided).map((run) => train({ ...run, resume: true })));
    await sharded(whole, { resume: true });
    await expectAlike(8);
  });

  it('stops all at a loss that is not finite, and says whose batch it was', async () => {
    const folder = join(root, 'bad');
    const errors = await Promise.all(
      runs(folder, { badStep: 5 }).map((run) => train(run).catch((error: Error) => error.message)),
    );
    expect(errors[1]).toBe(errors[0]);
    expect(errors[0]).toMatch(
      /^step 3: the loss is (?:Infinity|NaN), first in layer layers\.1, forward pass \(exp\), in the batch of process 0; the last good checkpoint is .*step-00000002/,
    );
  });

  it('is not resumed with another number of processes', async () => {
    const folder = join(root, 'whole');
    await expect(train({ ...tinyRun(new ReferenceExecutor(), folder), resume: true })).rejects.toThrow(
      'was made with another number of GPUs (2, now 1)',
    );
  });
});
