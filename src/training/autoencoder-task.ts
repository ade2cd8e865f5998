import type { AutoencoderSpec } from '../models/autoencoder/autoencoder.ts';
import { autoencoderSpec } from '../models/autoencoder/autoencoder.ts';
import {
  type AutoencoderConfig,
  autoencoderPresets,
  checkAutoencoderConfig,
  latentSpec,
} from '../models/autoencoder/config.ts';
import { autoencoderLoss } from '../models/autoencoder/loss.ts';
import type { Parameters } from '../nn/parameters.ts';
import { fold, keyFromSeed, normal } from '../random/philox.ts';
import { fromFloat32 } from '../tensor/host-tensor.ts';
import { at, elementCount, type TensorType } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { BatchMaker, BatchPlanner } from './batch.ts';
import { presetOf } from './preset.ts';
import type { AutoencoderRecipe, Variant } from './recipe.ts';
import type { TrainingModel } from './step.ts';
import { latentsShape, variantsByName, videoOf, videoShape, worldBatchMaker } from './world-batches.ts';
import { drawVariant, variantName } from './world-clips.ts';

/** A batch of an autoencoder's training. */
interface AutoencoderBatch<Leaf> {
  /** [B, T, H, W, 3], -1 to 1. */
  readonly video: Leaf;
  /** Standard normal, [B, T', H', W', C]. */
  readonly noise: Leaf;
}

/**
 * The configuration a recipe asks for.
 * @param file the recipe's, for messages.
 * @throws UserError when the preset or an override does not exist, or does not fit.
 */
export function autoencoderConfigOf(recipe: AutoencoderRecipe, file: string): AutoencoderConfig {
  const config = presetOf(autoencoderPresets, recipe, file);
  const channels = recipe.overrides.latentChannels;
  if (typeof channels !== 'number' || !(channels > 0)) return checkAutoencoderConfig(config);
  const latentMean = new Array<number>(channels).fill(0);
  const latentStd = new Array<number>(channels).fill(1);
  return checkAutoencoderConfig({ ...config, latentMean, latentStd });
}

/** The autoencoder as training sees it. */
export function autoencoderTraining(config: AutoencoderConfig, recipe: AutoencoderRecipe): TrainingModel {
  return {
    kind: 'autoencoder',
    config,
    spec: autoencoderSpec(config),
    loss: (parameters, batch) => {
      const { video, noise } = batch as AutoencoderBatch<Tensor>;
      const p = parameters as Parameters<AutoencoderSpec>;
      const { loss, pixel, gradient, kl, squaredError } = autoencoderLoss(
        p,
        config,
        video,
        noise,
        recipe.loss,
      );
      return { loss, terms: { pixel, gradient, kl, squaredError } };
    },
  };
}

/** Batches of one size each: which size is drawn for each step, the worlds come one after the other. */
export function autoencoderPlanner(config: AutoencoderConfig, recipe: AutoencoderRecipe): BatchPlanner {
  const { variants, clips } = recipe.data;
  return {
    variants: new Map(variants.map((variant) => [variantName(variant), batchTypes(config, variant)])),
    plan: (step, position) => {
      const chosen = drawVariant(variants, recipe.seed, 'step variant', step);
      const variant = at(variants, chosen);
      const worlds = Array.from({ length: variant.clips }, (_, i) => [(position + i) % clips]);
      return {
        plan: { step, number: step, variant: variantName(variant), clips: worlds },
        position: position + variant.clips,
      };
    },
  };
}

/** Latent positions of a batch of these types: what the plan counts as tokens. */
export function latentPositions(types: object): number {
  return elementCount((types as AutoencoderBatch<TensorType>).noise.shape.slice(0, -1));
}

/** Renders the planned worlds and draws the step's noise. */
export function autoencoderBatchMaker(config: AutoencoderConfig, recipe: AutoencoderRecipe): BatchMaker {
  const variants = variantsByName(recipe.data);
  const makeWorlds = worldBatchMaker(recipe.data);
  return async (plan) => {
    const video = videoOf((await makeWorlds(plan)).values);
    const { noise } = batchTypes(config, variants(plan.variant));
    const key = fold(fold(keyFromSeed(recipe.seed), 'latent noise'), plan.number);
    const draws = fromFloat32('f32', noise.shape, normal(key, elementCount(noise.shape)));
    const facts = { clips: plan.clips.length, pixels: elementCount(video.shape) / 3 };
    return { variant: plan.variant, values: { video, noise: draws }, facts };
  };
}

function batchTypes(config: AutoencoderConfig, variant: Variant): AutoencoderBatch<TensorType> {
  return {
    video: { shape: videoShape(variant, variant.clips), dtype: 'f32' },
    noise: { shape: latentsShape(variant, variant.clips, latentSpec(config)), dtype: 'f32' },
  };
}
