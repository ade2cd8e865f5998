import type { CachedCaptions, LatentCache } from '../data/latent-cache.ts';
import { type FlowBatch, flowLoss } from '../diffusion/flow.ts';
import { drawKnownFrames } from '../diffusion/known-frames.ts';
import { drawTimestep } from '../diffusion/timesteps.ts';
import { UserError } from '../errors.ts';
import { type LatentSpec, latentShapeOf } from '../models/latent-spec.ts';
import { captionBytes, captionTokens } from '../models/text/caption-bytes.ts';
import {
  checkTransformerConfig,
  latentPositions,
  patchChannels,
  type TimeHeightWidth,
  type TransformerConfig,
  transformerPresets,
} from '../models/transformer/config.ts';
import { gridOf, packTokens, patchifyInto } from '../models/transformer/patches.ts';
import {
  layoutSequence,
  pickTokens,
  type Sequence,
  type SequenceBudget,
  type SequenceSample,
  sequenceTypes,
  videoTokensOf,
} from '../models/transformer/sequence.ts';
import { type TransformerSpec, transformer, transformerSpec } from '../models/transformer/transformer.ts';
import type { Parameters } from '../nn/parameters.ts';
import { fold, type Key, keyFromSeed, normal, permutation, RandomStream } from '../random/philox.ts';
import { fromFloat32, type HostTensor, hostTensor } from '../tensor/host-tensor.ts';
import { at, elementCount, type Shape, type TensorType } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { Batch, BatchMaker, BatchPlan, BatchPlanner } from './batch.ts';
import { drawKeptTokens, keptCount, objectShares, objectTokens } from './object-tokens.ts';
import { packFirstFit } from './packing.ts';
import { presetOf } from './preset.ts';
import type { CaptionMix, KeptTokens, TransformerRecipe } from './recipe.ts';
import type { TrainingModel } from './step.ts';
import { variantName } from './world-clips.ts';

/** A packed batch: the flow's tensors and the sequence that they lie in. */
interface TransformerBatch<Leaf> extends FlowBatch<Leaf> {
  readonly sequence: Sequence<Leaf>;
}

/** The one shape of packed batches. */
const packed = 'packed';
const levels = ['short', 'medium', 'detailed', 'none'] as const satisfies readonly (keyof CaptionMix)[];

/**
 * The configuration a recipe asks for, checked against the latents it is to learn.
 * @param file the recipe's, for messages.
 * @throws UserError when the preset or an override does not exist or fit, or a variant of the data exceeds the budget.
 */
export function transformerConfigOf(
  recipe: TransformerRecipe,
  latent: LatentSpec,
  file: string,
): TransformerConfig {
  const config = checkTransformerConfig(presetOf(transformerPresets, recipe, file));
  if (config.channels !== latent.channels) {
    throw new UserError(
      `${file}: the model takes latents of ${config.channels} channels, the cache has ${latent.channels}; set overrides.channels`,
    );
  }
  for (const variant of recipe.data.variants) {
    const name = variantName(variant);
    const shape = latentShapeOf(latent, variant.frames, variant);
    if (config.patch.some((side, axis) => at(shape, axis) % side !== 0)) {
      const positions = shape.slice(0, 3).join('x');
      throw new UserError(
        `${file}: patches of ${config.patch.join('x')} do not divide a clip of ${name}, ${positions} latent positions; set overrides.patch`,
      );
    }
    const tokens = videoTokensOf(gridOfShape(config, shape));
    if (tokens > recipe.budget.video) {
      throw new UserError(
        `${file}: budget.video ${recipe.budget.video}: a clip of ${name} has ${tokens} tokens; give at least that`,
      );
    }
  }
  return config;
}

/** The transformer as training sees it. */
export function transformerTraining(config: TransformerConfig): TrainingModel {
  return {
    kind: 'transformer',
    config,
    spec: transformerSpec(config),
    loss: (parameters, batch) => {
      const { sequence, ...flow } = batch as TransformerBatch<Tensor>;
      const p = parameters as Parameters<TransformerSpec>;
      const velocity = (patches: Tensor) => transformer(p, config, { patches, sequence });
      const clean = flow.clean.cast('f32');
      const { loss } = flowLoss(velocity, { ...flow, clean });
      return { loss, weight: flow.weights.sum(), terms: {} };
    },
  };
}

/**
 * Packs clips of a cache in an order that is drawn anew for each epoch. A planned clip is `[row, clip, level, position]`;
 * its position in the endless order names its draws.
 * @param cache one that `openTransformerData` opened for the recipe.
 */
export function transformerPlanner(
  config: TransformerConfig,
  recipe: TransformerRecipe,
  cache: LatentCache,
): BatchPlanner {
  const { captions: mix, seed } = recipe;
  const { clips } = cache.header;
  const budget = budgetOf(recipe);
  const key = keyFromSeed(seed);
  const captionKey = fold(key, 'caption');
  let order: { readonly epoch: number; readonly of: Uint32Array } = { epoch: -1, of: new Uint32Array(0) };
  const clipAt = (position: number): number => {
    const epoch = Math.floor(position / clips);
    if (epoch !== order.epoch)
      order = { epoch, of: permutation(fold(fold(key, 'clip order'), epoch), clips) };
    return order.of[position % clips] ?? 0;
  };
  const found = new Map<number, Uint8Array>();
  const objectsOf = (clip: number): Uint8Array => {
    const known = found.get(clip);
    if (known !== undefined) return known;
    const covered = Float32Array.from(cache.covered(clip));
    const objects = objectTokens(objectShares(config, cache.shape(clip).slice(0, 3), covered));
    found.set(clip, objects);
    return objects;
  };
  const itemAt = (position: number, kept: KeptTokens | undefined) => {
    const clip = clipAt(position);
    const level = drawLevel(mix, fold(captionKey, position));
    const text = captionTokens(captionOf(cache.captions(clip), level), budget.textTokens);
    const grid = gridOfShape(config, cache.shape(clip));
    const video =
      kept === undefined
        ? videoTokensOf(grid)
        : keptCount(keptKey(clipKeyOf(recipe, position)), grid, objectsOf(clip), kept);
    return { clip, level, text, video };
  };
  return {
    variants: new Map([[packed, batchTypes(config, budget)]]),
    plan: (step, position) => {
      const kept = keptAt(recipe, step);
      const rows = packFirstFit(budget, (i) => itemAt(position + i, kept));
      const planned = rows.map(({ row, item: { clip, level } }, i) => [row, clip, level, position + i]);
      return {
        plan: { step, number: step, variant: packed, clips: planned },
        position: position + planned.length,
      };
    },
  };
}

/** Reads the planned clips, draws their timesteps, known frames, kept tokens and noise, and lays them out. */
export function transformerBatchMaker(
  config: TransformerConfig,
  recipe: TransformerRecipe,
  cache: LatentCache,
): BatchMaker {
  const budget = budgetOf(recipe);
  const noiseKey = fold(keyFromSeed(recipe.seed), 'noise');
  return async (plan) => {
    const settings = { recipe, kept: keptAt(recipe, plan.step), budget };
    const samples = await Promise.all(plan.clips.map((clip) => openSample(config, settings, cache, clip)));
    return assemble(config, budget, plan, samples, fold(noiseKey, plan.number));
  };
}

/** Video tokens of a batch of these types. */
export function videoTokens(types: object): number {
  return elementCount((types as TransformerBatch<TensorType>).timesteps.shape);
}

/** A clip as it goes into a batch. */
interface Sample extends SequenceSample {
  readonly row: number;
  /** f16 [T', H', W', C]: all of it, whatever tokens are kept. */
  readonly latents: HostTensor<'f16'>;
  /** Of each token that is kept; 0 where it is known. */
  readonly timesteps: Float32Array;
  /** Of each token that is kept, in the loss; 0 where it is known. */
  readonly weights: Float32Array;
}

/** What a step's samples have in common. */
interface Settings {
  readonly recipe: TransformerRecipe;
  readonly kept: KeptTokens | undefined;
  readonly budget: SequenceBudget;
}

async function openSample(
  config: TransformerConfig,
  { recipe, kept, budget }: Settings,
  cache: LatentCache,
  [row = 0, clip = 0, level = 0, position = 0]: readonly number[],
): Promise<Sample> {
  const { known, objects, timestepShift } = recipe;
  const latents = await cache.read(clip);
  const grid = gridOfShape(config, latents.shape);
  const own = clipKeyOf(recipe, position);
  const timestep = drawTimestep(own, latentPositions(config, videoTokensOf(grid)), timestepShift);
  const isKnown = drawKnownFrames(fold(own, 'known'), grid[0], known);
  const shares = objects > 0 || kept !== undefined ? await sharesOf(config, cache, clip) : undefined;
  const tokens = shares && kept && drawKeptTokens(keptKey(own), grid, objectTokens(shares), kept);
  const inFrame = grid[1] * grid[2];
  const timesteps = new Float32Array(videoTokensOf(grid));
  for (const [frame, known] of isKnown.entries())
    timesteps.fill(known ? 0 : timestep, frame * inFrame, (frame + 1) * inFrame);
  const weights = timesteps.map((t, token) => (t === 0 ? 0 : 1 + objects * (shares?.[token] ?? 0)));
  return {
    row,
    text: captionBytes(captionOf(cache.captions(clip), level), budget.textTokens),
    grid,
    tokens,
    latents,
    timesteps: ofTokens(tokens, timesteps),
    weights: ofTokens(tokens, weights),
  };
}

/** What decides all draws of the clip at a position but its caption. */
function clipKeyOf({ seed }: TransformerRecipe, position: number): Key {
  return fold(fold(keyFromSeed(seed), 'clip'), position);
}

/** What decides which tokens of a clip are kept. @param own from {@link clipKeyOf}. */
function keptKey(own: Key): Key {
  return fold(own, 'kept');
}

/** Of the values of all tokens those of some. @param tokens default: all. */
function ofTokens(tokens: Int32Array | undefined, values: Float32Array): Float32Array {
  return tokens === undefined ? values : Float32Array.from(tokens, (token) => at(values, token));
}

async function sharesOf(config: TransformerConfig, cache: LatentCache, clip: number): Promise<Float32Array> {
  const { shape, data } = await cache.coverage(clip);
  return objectShares(config, shape, data);
}

/** What of each clip a step keeps; undefined where it sees whole clips. @param step counted from 1. */
function keptAt({ kept, steps }: TransformerRecipe, step: number): KeptTokens | undefined {
  return kept !== undefined && step <= Math.round(kept.until * steps) ? kept : undefined;
}

function assemble(
  config: TransformerConfig,
  budget: SequenceBudget,
  { variant, clips }: BatchPlan,
  samples: readonly Sample[],
  noiseKey: Key,
): Batch {
  const rows = Array.from({ length: budget.rows }, (_, row) =>
    samples.filter((sample) => sample.row === row),
  );
  const shape = [budget.rows, budget.videoTokens];
  const perToken = (values: (sample: Sample) => Float32Array): HostTensor<'f32'> =>
    fromFloat32(
      'f32',
      shape,
      packTokens(
        budget,
        1,
        rows.map((row) => row.map(values)),
      ).data,
    );
  const patchShape = [...shape, patchChannels(config)];
  const used = samples.reduce((sum, { timesteps }) => sum + timesteps.length, 0);
  return {
    variant,
    values: {
      clean: hostTensor('f16', patchShape, packPatches(config, budget, rows)),
      noise: fromFloat32('f32', patchShape, normal(noiseKey, elementCount(patchShape))),
      timesteps: perToken(({ timesteps }) => timesteps),
      weights: perToken(({ weights }) => weights),
      sequence: { ...layoutSequence(config, budget, rows) },
    },
    facts: { clips: clips.length, tokens: used, fill: used / elementCount(shape) },
  };
}

/** Patches of the rows' latents, [B, V, P]: f16 as they are stored, which halves what goes to the device. */
function packPatches(
  config: TransformerConfig,
  { rows: count, videoTokens }: SequenceBudget,
  rows: readonly (readonly Sample[])[],
): Uint16Array {
  const channels = patchChannels(config);
  const out = new Uint16Array(count * videoTokens * channels);
  for (const [row, samples] of rows.entries()) {
    let token = row * videoTokens;
    for (const { latents, timesteps, tokens } of samples) {
      if (tokens === undefined) patchifyInto<'f16'>(config, latents, out, token * channels);
      else {
        const whole = new Uint16Array(latents.data.length);
        patchifyInto<'f16'>(config, latents, whole, 0);
        pickTokens(whole, channels, tokens, out, token * channels);
      }
      token += timesteps.length;
    }
  }
  return out;
}

function batchTypes(config: TransformerConfig, budget: SequenceBudget): TransformerBatch<TensorType> {
  const shape = [budget.rows, budget.videoTokens];
  const tokens: TensorType = { shape, dtype: 'f32' };
  const patches = [...shape, patchChannels(config)];
  return {
    clean: { shape: patches, dtype: 'f16' },
    noise: { shape: patches, dtype: 'f32' },
    timesteps: tokens,
    weights: tokens,
    sequence: sequenceTypes(config, budget),
  };
}

function budgetOf({ budget: { rows, video, text, segments } }: TransformerRecipe): SequenceBudget {
  return { rows, videoTokens: video, textTokens: text, segments };
}

function gridOfShape(config: TransformerConfig, shape: Shape): TimeHeightWidth {
  return gridOf(config, [at(shape, 0), at(shape, 1), at(shape, 2)]);
}

/** Index among {@link levels}, by the mix's shares. */
function drawLevel(mix: CaptionMix, key: Key): number {
  const total = levels.reduce((sum, level) => sum + mix[level], 0);
  let left = new RandomStream(key).uniform(0, total);
  const drawn = levels.findIndex((level) => {
    left -= mix[level];
    return left < 0;
  });
  return Math.max(0, drawn);
}

function captionOf(captions: CachedCaptions, level: number): string {
  const name = at(levels, level);
  return name === 'none' ? '' : captions[name];
}
