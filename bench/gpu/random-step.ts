import type { LatentCache } from '../../src/data/latent-cache.ts';
import { transformerPresets } from '../../src/models/transformer/config.ts';
import { layoutSequence } from '../../src/models/transformer/sequence.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, zeros } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { leaves, mapTree } from '../../src/tensor/tree.ts';
import {
  autoencoderConfigOf,
  autoencoderPlanner,
  autoencoderTraining,
} from '../../src/training/autoencoder-task.ts';
import { readAutoencoderRecipe, readTransformerRecipe } from '../../src/training/recipe.ts';
import { initialTrainingState, stepNumbers, type TracedStep, traceStep } from '../../src/training/step.ts';
import { transformerPlanner, transformerTraining } from '../../src/training/transformer-task.ts';

/** A training step, and values for its inputs: the state before the first step, and a batch of random numbers. */
export interface RandomStep {
  /** Name of the batch's shape. */
  readonly variant: string;
  readonly traced: TracedStep;
  readonly state: readonly HostTensor[];
  readonly batch: readonly HostTensor[];
  /** The last input: the numbers of step `step`, counted from 1. */
  numbers(step: number): HostTensor;
}

/** The steps of a recipe's training, one for each shape of its batches. */
export async function randomSteps(
  kind: 'autoencoder' | 'transformer',
  file: string,
): Promise<readonly RandomStep[]> {
  const { recipe, model, types, sequence } = await tasks[kind](file);
  const state = leaves(initialTrainingState(model, 0)) as HostTensor[];
  return types.map(([variant, batch]) => {
    const random = mapTree(batch, (leaf, path) => randomTensor(leaf as TensorType, path));
    return {
      variant,
      traced: traceStep(model, batch, recipe),
      state,
      batch: leaves({ ...random, ...sequence }) as HostTensor[],
      numbers: (step) => stepNumbers(recipe, step),
    };
  });
}

const tasks = {
  autoencoder: async (file: string) => {
    const recipe = await readAutoencoderRecipe(file);
    const config = autoencoderConfigOf(recipe, file);
    const types = [...autoencoderPlanner(config, recipe).variants];
    return { recipe, model: autoencoderTraining(config, recipe), types, sequence: {} };
  },
  transformer: async (file: string) => {
    const recipe = await readTransformerRecipe(file);
    const config = { ...transformerPresets[recipe.preset as 'micro'], ...recipe.overrides };
    const { rows, video: videoTokens, text: textTokens, segments } = recipe.budget;
    const samples = Array.from({ length: Math.floor(videoTokens / 448) }, () => ({
      text: new Uint8Array(48).fill(97),
      grid: [7, 8, 8] as const,
      timesteps: new Float32Array(448).fill(0.5, 64),
    }));
    const sequence = layoutSequence(
      config,
      { rows, videoTokens, textTokens, segments },
      Array.from({ length: rows }, () => samples),
    );
    const clips = { header: { clips: 1 } } as LatentCache;
    const types = [...transformerPlanner(config, recipe, clips).variants];
    return { recipe, model: transformerTraining(config), types, sequence: { sequence } };
  },
};

/** Normal numbers; timesteps and weights from 0 to 1. */
function randomTensor({ shape, dtype }: TensorType, path: string): HostTensor {
  if (dtype !== 'f32' && dtype !== 'f16') return zeros(dtype, shape);
  const values = normal(fold(keyFromSeed(1), path), elementCount(shape));
  const isShare = path === 'timesteps' || path === 'weights';
  return fromFloat32(
    dtype,
    shape,
    isShare ? values.map((value) => Math.min(1, Math.abs(value) / 3)) : values,
  );
}
