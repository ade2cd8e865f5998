import { describe, expect, it } from 'vitest';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { linear, linearSpec } from '../../src/nn/linear.ts';
import type { Parameters } from '../../src/nn/parameters.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, zeros } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import { entries, leaves } from '../../src/tensor/tree.ts';
import { muon, orthogonalized } from '../../src/training/muon.ts';
import { adamSchedule, adamW, learningRate } from '../../src/training/optimizer.ts';
import { initialTrainingState, stepNumbers, type TrainingModel, traceStep } from '../../src/training/step.ts';
import { tinyModel, tinyRecipe } from './tiny.ts';

/** AdamW as its papers write it, on plain numbers. */
function textbook(
  p: number,
  gradients: readonly number[],
  { rate, decay, isMatrix }: { rate: number; decay: number; isMatrix: boolean },
): number {
  const [beta1, beta2, epsilon] = [0.9, 0.95, 1e-8];
  let [m, v, value] = [0, 0, p];
  gradients.forEach((g, i) => {
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const [mHat, vHat] = [m / (1 - beta1 ** (i + 1)), v / (1 - beta2 ** (i + 1))];
    value -= (isMatrix ? rate * decay * value : 0) + (rate * mHat) / (Math.sqrt(vHat) + epsilon);
  });
  return value;
}

describe('AdamW', () => {
  it('follows the textbook, decaying matrices only', async () => {
    const executor = new ReferenceExecutor();
    const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });
    const tree = { matrix: f32(1, 2), vector: f32(1) };
    const settings = { weightDecay: 0.1 };
    const { graph } = trace(
      'adam',
      (p, g, s, now) => {
        const { parameters, state } = adamW(p, g, s, now, settings);
        return [parameters, state];
      },
      tree,
      tree,
      { mean: tree, square: tree },
      { rate: f32(), epsilon: f32(), keep: f32() },
    );
    const executable = await executor.compile(graph);
    const start = [0.5, -2, 1.5];
    const steps = [
      [0.1, -3, 1e-4],
      [0.2, 2, -1e-4],
      [-0.4, 1, 5],
    ];
    const upload = (...values: number[]) =>
      executor.upload(
        fromFloat32(
          'f32',
          values.length === 2 ? [1, 2] : values.length === 1 ? [1] : [],
          Float32Array.from(values),
        ),
      );
    const scalar = (value: number) => executor.upload(fromFloat32('f32', [], Float32Array.of(value)));
    let state = [upload(0.5, -2), upload(1.5), upload(0, 0), upload(0), upload(0, 0), upload(0)];
    for (const [index, [a, b, c]] of steps.entries()) {
      const { rate, epsilon, keep } = adamSchedule({ rate: 0.01 }, index + 1, settings);
      const [p, q, ...moments] = state;
      const outputs = await executor.run(executable, [
        p!,
        q!,
        upload(a!, b!),
        upload(c!),
        ...moments,
        scalar(rate),
        scalar(epsilon),
        scalar(keep),
      ]);
      state = [...outputs];
    }
    const found = [...executor.peek(state[0]!), ...executor.peek(state[1]!)];
    const expected = start.map((p, i) =>
      textbook(
        p,
        steps.map((g) => g[i]!),
        { rate: 0.01, decay: 0.1, isMatrix: i < 2 },
      ),
    );
    found.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 6);
    });
  });
});

describe('the learning rate', () => {
  const schedule = { rate: 2, warmup: 10, steps: 110, floor: 0.1 };
  it('rises in a straight line, then falls along half a cosine to its floor', () => {
    expect([1, 5, 10].map((step) => learningRate(schedule, step))).toEqual([0.2, 1, 2]);
    expect(learningRate(schedule, 60)).toBeCloseTo(2 * (0.1 + 0.9 * 0.5));
    expect(learningRate(schedule, 110)).toBeCloseTo(0.2);
    expect(learningRate(schedule, 1000)).toBeCloseTo(0.2);
  });
  it('stays without a number of steps', () => {
    expect(learningRate({ rate: 3 }, 1)).toBe(3);
    expect(learningRate({ rate: 3, warmup: 2 }, 1e6)).toBe(3);
  });
});

describe('Muon', () => {
  const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });
  const valuesOf = async (x: HostTensor<'f32'>) => {
    const executor = new ReferenceExecutor();
    const { graph } = trace('orthogonalized', (y) => [orthogonalized(y)], { shape: x.shape, dtype: 'f32' });
    const [found] = await executor.run(await executor.compile(graph), [executor.upload(x)]);
    return executor.peek(found!);
  };

  it.each([
    [4, 9],
    [9, 4],
    [5, 12],
  ])('makes the shorter side of a %i x %i matrix nearly orthonormal', async (rows, columns) => {
    const x = fromFloat32('f32', [2, rows, columns], normal(keyFromSeed(rows), 2 * rows * columns));
    const found = await valuesOf(x);
    const least = Math.min(rows, columns);
    for (const n of [0, 1]) {
      const line = (i: number) =>
        Array.from({ length: Math.max(rows, columns) }, (_, k) =>
          rows > columns ? found[(n * rows + k) * columns + i]! : found[(n * rows + i) * columns + k]!,
        );
      const dot = (i: number, j: number) => line(i).reduce((sum, v, k) => sum + v * line(j)[k]!, 0);
      for (let i = 0; i < least; i++) {
        for (let j = 0; j <= i; j++) {
          if (i === j) expect(dot(i, i)).toBeGreaterThan(0.4);
          if (i === j) expect(dot(i, i)).toBeLessThan(1.6);
          else expect(Math.abs(dot(i, j))).toBeLessThan(0.55);
        }
      }
    }
  });

  it('keeps singular vectors and evens out singular values', async () => {
    const x = fromFloat32('f32', [1, 3, 3], Float32Array.of(3, 0, 0, 0, 1, 0, 0, 0, -0.1));
    const found = await valuesOf(x);
    const diagonal = [0, 4, 8].map((i) => found[i]!);
    expect(diagonal.map(Math.sign)).toEqual([1, 1, -1]);
    for (const value of diagonal.map(Math.abs)) {
      expect(value).toBeGreaterThan(0.6);
      expect(value).toBeLessThan(1.3);
    }
    expect(found.every((value, i) => i % 4 === 0 || value === 0)).toBe(true);
  });

  it('moves matrices and kernels of blocks, three in a joint projection, and leaves the rest to AdamW', async () => {
    const tree = {
      blocks: [{ qkv: { weight: f32(6, 2), bias: f32(6) } }],
      out: { weight: f32(2, 2) },
      down: { weight: f32(2, 1, 3, 1) },
    };
    const step = { rate: f32(), epsilon: f32(), keep: f32(), plainRate: f32() };
    const one = async (optimize: typeof muon) => {
      const executor = new ReferenceExecutor();
      const { graph } = trace(
        'step',
        (p, g, s, now) => {
          const { parameters, state } = optimize(p, g, s, now);
          return [parameters, state];
        },
        tree,
        tree,
        { mean: tree, square: tree },
        step,
      );
      const leavesOf = (seed: number) =>
        (leaves(tree) as TensorType[]).map(({ shape }, i) =>
          executor.upload(fromFloat32('f32', shape, normal(keyFromSeed(seed + i), elementCount(shape)))),
        );
      const zero = () =>
        (leaves(tree) as TensorType[]).map(({ shape }) => executor.upload(zeros('f32', shape)));
      const scalars = [0.1, 1e-8, 0.9, 0.01].map((value) =>
        executor.upload(fromFloat32('f32', [], Float32Array.of(value))),
      );
      const outputs = await executor.run(await executor.compile(graph), [
        ...leavesOf(1),
        ...leavesOf(5),
        ...zero(),
        ...zero(),
        ...scalars,
      ]);
      return outputs.map((buffer) => executor.peek(buffer));
    };
    const [found, plain] = [await one(muon), await one(adamW)];
    // Leaves in order: qkv weight, qkv bias, out weight, down weight; then their means and squares.
    for (const i of [1, 2, 5, 6, 9, 10]) expect(found[i]).toEqual(plain[i]);
    expect(found[8]).toEqual(new Float64Array(12));
    expect(found[11]).toEqual(new Float64Array(6));
    const given = normal(keyFromSeed(1), 12);
    const change = fromFloat32('f32', [3, 2, 2], normal(keyFromSeed(5), 12));
    const expected = await valuesOf(change);
    found[0]!.forEach((value, i) => {
      expect(value).toBeCloseTo(0.9 * given[i]! - 0.01 * 0.2 * Math.SQRT2 * expected[i]!, 6);
    });
    const kernel = normal(keyFromSeed(4), 6);
    const kernelChange = await valuesOf(fromFloat32('f32', [1, 2, 3], normal(keyFromSeed(8), 6)));
    found[3]!.forEach((value, i) => {
      expect(value).toBeCloseTo(0.9 * kernel[i]! - 0.01 * 0.2 * Math.sqrt(3) * kernelChange[i]!, 6);
    });
  });

  it('is what a recipe with its name steps by, at the rate of the schedule', async () => {
    const spec = { blocks: [linearSpec(3, 4)], out: linearSpec(4, 1) };
    const model: TrainingModel = {
      ...tinyModel,
      spec,
      loss: (parameters, batch) => {
        const { blocks, out } = parameters as Parameters<typeof spec>;
        const { x } = batch as { readonly x: Tensor };
        const loss = linear(out, linear(blocks[0]!, x).tanh()).square().mean();
        return { loss, terms: {} };
      },
    };
    const start = initialTrainingState(model, 2);
    const recipe = (method: 'adamw' | 'muon') => ({
      ...tinyRecipe,
      optimizer: { ...tinyRecipe.optimizer, method, rate: 0.1, warmup: 4 },
    });
    const stepped = async (method: 'adamw' | 'muon') => {
      const executor = new ReferenceExecutor();
      const { graph } = traceStep(model, { x: f32(5, 3) }, recipe(method));
      const inputs = [
        ...leaves(start),
        fromFloat32('f32', [5, 3], normal(keyFromSeed(3), 15)),
        stepNumbers(recipe(method), 1),
      ] as HostTensor[];
      const outputs = await executor.run(
        await executor.compile(graph),
        inputs.map((tensor) => executor.upload(tensor)),
      );
      // After the metrics come the parameters.
      return new Map(entries(start.parameters).map(([name], i) => [name, executor.peek(outputs[i + 1]!)]));
    };
    const [plain, moved] = [await stepped('adamw'), await stepped('muon')];
    const before = new Map(entries(start.parameters) as [string, HostTensor<'f32'>][]);
    for (const [name, values] of moved)
      if (name !== 'blocks.0.weight') expect(values).toEqual(plain.get(name));
    const rate = 0.1 / 4;
    const keep = 1 - rate * tinyRecipe.optimizer.weightDecay;
    const changes = moved
      .get('blocks.0.weight')!
      .map((value, i) => keep * before.get('blocks.0.weight')!.data[i]! - value);
    // Three singular values between 0.7 and 1.2, times a share that makes them as large as AdamW's steps.
    const size = Math.hypot(...changes) / (rate * 0.2 * Math.sqrt(4) * Math.sqrt(3));
    expect(size).toBeGreaterThan(0.65);
    expect(size).toBeLessThan(1.25);
  });
});
