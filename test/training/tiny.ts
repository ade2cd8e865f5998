import type { Executor } from '../../src/executors/executor.ts';
import { linear, linearSpec } from '../../src/nn/linear.ts';
import type { Parameters } from '../../src/nn/parameters.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { fromFloat32 } from '../../src/tensor/host-tensor.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import type { BatchMaker, BatchPlanner } from '../../src/training/batch.ts';
import type { TrainingRun } from '../../src/training/loop.ts';
import type { CommonRecipe } from '../../src/training/recipe.ts';
import type { TrainingModel } from '../../src/training/step.ts';

const spec = { layers: [linearSpec(3, 4), linearSpec(4, 4), linearSpec(4, 1)] };

/** Three layers; the second's exponential overflows for large inputs. */
export const tinyModel: TrainingModel = {
  kind: 'transformer',
  config: { tiny: true },
  spec,
  loss: (parameters, batch) => {
    const [first, second, third] = (parameters as Parameters<typeof spec>).layers;
    const { x } = batch as { readonly x: Tensor };
    const h = linear(second!, linear(first!, x).tanh().mul(x.max())).square().exp();
    const loss = linear(third!, h)
      .sub(x.sum([-1], true))
      .square()
      .mean();
    return { loss, terms: {} };
  },
};

/** Where the tiny model's data becomes too large. */
export interface TinyOptions {
  readonly badStep?: number;
}

/** A recipe for it. */
export const tinyRecipe: CommonRecipe = {
  preset: 'tiny',
  overrides: {},
  data: { kind: 'worlds', seed: 0, split: 'train', rate: 12, clips: 1, variants: [], choices: undefined },
  steps: 8,
  optimizer: {
    method: 'adamw',
    rate: 0.01,
    warmup: 0,
    floor: 0,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0.1,
    maxNorm: 1,
  },
  ema: 0.6,
  seed: 3,
  intervals: { checkpoint: 2, sample: 100, log: 1 },
};

const planner: BatchPlanner = {
  variants: new Map([['x', { x: { shape: [2, 3], dtype: 'f32' } }]]),
  plan: (step, position) => ({
    plan: { step, number: step, variant: 'x', clips: [] },
    position: position + 1,
  }),
};

/** Draws the tiny model's batches. */
export function tinyMaker({ badStep }: TinyOptions = {}): BatchMaker {
  return async ({ number, variant }) => {
    const values = normal(fold(keyFromSeed(5), number), 6).map((value) => 0.1 * value);
    if (number === badStep) values[0] = 1000;
    return { variant, values: { x: fromFloat32('f32', [2, 3], values) }, facts: {} };
  };
}

/** A training of it. */
export function tinyRun(executor: Executor, folder: string, options: TinyOptions = {}): TrainingRun {
  return {
    executor,
    model: tinyModel,
    recipe: tinyRecipe,
    planner,
    pool: {
      make: tinyMaker(options),
      ahead: 3,
      recycle: () => undefined,
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    folder,
    identity: { kind: 'transformer', recipe: 'tiny', data: '', from: '' },
    resume: false,
  };
}
