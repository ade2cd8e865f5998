import { parameterCount } from '../nn/parameters.ts';
import { elementCount, type TensorType } from '../tensor/shape.ts';
import { leaves } from '../tensor/tree.ts';
import type { BatchPlanner } from './batch.ts';
import type { CommonRecipe } from './recipe.ts';
import { stateTypes, type TrainingModel } from './step.ts';

/** What a training will do, before it does anything. */
export interface RunPlan {
  readonly parameters: number;
  readonly steps: number;
  /** Bytes of weights, moments and running average, f32. */
  readonly stateBytes: number;
  /** Each size of step. */
  readonly variants: readonly {
    readonly name: string;
    /** Bytes uploaded for a step. */
    readonly batchBytes: number;
    /** Positions that the model works on: tokens of a transformer, latent positions of an autoencoder. */
    readonly tokens: number;
  }[];
}

/**
 * Plans a training.
 * @param tokensOf number of positions of a batch, from its types.
 * @param parts processes of which each has its part of the moments. Default 1.
 */
export function planRun(
  model: TrainingModel,
  planner: BatchPlanner,
  recipe: CommonRecipe,
  tokensOf: (types: object) => number,
  parts = 1,
): RunPlan {
  const parameters = parameterCount(model.spec);
  const bytes = (tree: object) =>
    (leaves(tree) as TensorType[]).reduce((sum, { shape }) => sum + 4 * elementCount(shape), 0);
  return {
    parameters,
    steps: recipe.steps,
    stateBytes: bytes(stateTypes(model.spec, parts)),
    variants: [...planner.variants].map(([name, types]) => ({
      name,
      batchBytes: bytes(types),
      tokens: tokensOf(types),
    })),
  };
}

/** The plan as lines for a terminal. @param gpus how many make each step together, a batch each. Default 1. */
export function formatPlan(plan: RunPlan, gpus = 1): string {
  const each = gpus === 1 ? '' : `${gpus} x `;
  const million = (count: number) => `${(count / 1e6).toFixed(2)} million`;
  const mega = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const rows = plan.variants.map(
    ({ name, batchBytes, tokens }) =>
      `  ${name}: ${each}${tokens} tokens a step, ${mega(batchBytes)} uploaded`,
  );
  return [
    `${million(plan.parameters)} parameters, ${plan.steps} steps`,
    `${mega(plan.stateBytes)} for weights, moments and running average (and as much for the step's outputs where a device does not reuse donated memory), besides activations`,
    ...rows,
    '',
  ].join('\n');
}
