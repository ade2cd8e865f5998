import { describe, expect, it } from 'vitest';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { fromFloat32 } from '../../src/tensor/host-tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import { adamSchedule, adamW, learningRate } from '../../src/training/optimizer.ts';

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
