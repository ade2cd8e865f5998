import { guided } from '../diffusion/guidance.ts';
import { type Sampler, samplers, type Velocity } from '../diffusion/samplers.ts';
import { timestepSchedule, timestepShift, unshiftTimestep } from '../diffusion/timesteps.ts';
import { UserError } from '../errors.ts';
import type { LatentShape } from '../models/latent-spec.ts';
import {
  latentPositions,
  patchChannels,
  type TimeHeightWidth,
  type TransformerConfig,
} from '../models/transformer/config.ts';
import { gridOf, patchify, unpatchify } from '../models/transformer/patches.ts';
import { videoTokensOf } from '../models/transformer/sequence.ts';
import { fold, keyFromSeed, normal } from '../random/philox.ts';
import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { at, elementCount } from '../tensor/shape.ts';
import { corrected, correctionsOf } from './correction.ts';
import type { SamplingSettings } from './request.ts';
import type { PromptVelocity, VelocityField } from './velocity-field.ts';

/** Latent frames that have a place in a passage. */
export interface PlacedLatents {
  /** Latent frame of the passage at which they begin. */
  readonly at: number;
  /** Normalised, [frames, H, W, C]. */
  readonly latents: HostTensor<'f32'>;
}

/** A stretch of latent video to be sampled, of which some frames may be known. */
export interface Passage {
  readonly shape: LatentShape;
  /** Frames that stay as they are, and that the others are to fit. Default none. */
  readonly known?: readonly PlacedLatents[];
  /** What the others begin as, in place of pure noise: latents of `shape`, noised to the timestep `from`, 0 to 1. */
  readonly start?: { readonly latents: HostTensor<'f32'>; readonly from: number };
  /** How the others are corrected while they are sampled. Default not at all. */
  readonly correction?: LatentCorrection;
}

/** What can be said of latents that are not known, once it is seen what they are about to be. */
export interface LatentCorrection {
  /** Latent frames that are corrected, as far as they are not known. */
  readonly frames: ReadonlySet<number>;
  /** Latents to go on to, of the passage's shape, in place of those that the model expects so far. */
  readonly better: (expected: HostTensor<'f32'>) => Promise<HostTensor<'f32'>>;
}

/** How a long run is watched and stopped. */
export interface SamplingHooks {
  /** Aborted: the run ends with the signal's reason before its next evaluation. */
  readonly signal?: AbortSignal | undefined;
  /** Told at the start and after each step how many are done, of how many; a correction counts as one. */
  readonly onStep?: ((done: number, total: number) => void) | undefined;
}

/**
 * Samples a passage: noise, and known latents at timestep 0, are followed along the flow to data.
 *
 * Noise is drawn on the host from the seed, each latent position's by its place, so that it is the same for every device.
 * @returns normalised latents of the passage's shape.
 * @throws UserError when the model gives values that are no numbers.
 */
export async function sampleLatents(
  field: VelocityField,
  config: TransformerConfig,
  passage: Passage,
  settings: SamplingSettings,
  { signal, onStep }: SamplingHooks = {},
): Promise<HostTensor<'f32'>> {
  const { shape, start } = passage;
  const grid = gridOf(config, [shape[0], shape[1], shape[2]]);
  const x = patchify(config, startOf(passage, settings.seed));
  const shift = timestepShift(latentPositions(config, videoTokensOf(grid)));
  const schedule = scheduleFrom(settings.steps, shift, start?.from ?? 1);
  const steps = schedule.length - 1 + (passage.correction === undefined ? 0 : correctionsOf(schedule).length);
  onStep?.(0, steps);
  if (steps === 0) return unpatchify(config, grid, x);

  const distances = distancesToKnown(passage, grid, config.patch[0]);
  const isKnown = distances.map((distance) => distance === 0);
  const velocityUnder = (prompt: PromptVelocity): Velocity =>
    keepingKnown(prompt, isKnown, patchChannels(config), signal);
  using conditional = await field.under(settings.prompt, grid);
  // Without guidance the other prompt is never asked; the same one then stands for it.
  using other = settings.guidance === 1 ? undefined : await field.under(settings.negative, grid);
  const velocity = guided(velocityUnder(conditional), velocityUnder(other ?? conditional), {
    scale: settings.guidance,
    interval: settings.guidanceInterval,
    shares: guidanceShares(distances, patchChannels(config)),
  });
  const sampler = samplerOf(passage, settings, config, isKnown);
  const found = await sampler(velocity, x, schedule, (done) => onStep?.(done, steps));
  checkFinite(found, settings);
  return unpatchify(config, grid, found);
}

/** The sampler of the settings, with the passage's correction brought to patches. */
function samplerOf(
  { shape, correction }: Passage,
  settings: SamplingSettings,
  config: TransformerConfig,
  isKnown: readonly boolean[],
): Sampler {
  const sampler = samplers[settings.sampler];
  if (correction === undefined) return sampler;
  const grid = gridOf(config, [shape[0], shape[1], shape[2]]);
  const [, H, W] = grid;
  const patchFrames = new Set([...correction.frames].map((frame) => Math.floor(frame / config.patch[0])));
  const isCorrected = isKnown.map((known, token) => !known && patchFrames.has(Math.floor(token / (H * W))));
  const channels = patchChannels(config);
  return corrected(sampler, {
    where: (index) => at(isCorrected, Math.floor(index / channels)),
    better: async (expected) => patchify(config, await correction.better(unpatchify(config, grid, expected))),
  });
}

/** Otherwise damaged weights, or a device's overflow, would show as grey frames and look like a result. */
function checkFinite(values: Float32Array, { guidance }: SamplingSettings): void {
  if (values.every(Number.isFinite)) return;
  throw new UserError(
    `sampling: the model gave values that are no numbers; use less guidance than ${guidance}, another device or model`,
  );
}

/** Steps that a run of `steps` takes when it begins at timestep `from`: fewer, each as long as in a whole run. */
export function stepsOfRun(steps: number, shift: number, from: number): number {
  return from === 0 ? 0 : Math.max(1, Math.round(steps * unshiftTimestep(from, shift)));
}

function scheduleFrom(steps: number, shift: number, from: number): readonly number[] {
  return from === 0 ? [0] : timestepSchedule(stepsOfRun(steps, shift, from), shift, from);
}

/** What sampling begins with: noise, or (1 - t) x + t e of given latents, and known frames as they are. */
function startOf({ shape, known = [], start }: Passage, seed: number): HostTensor<'f32'> {
  // Drawn in the order of time, so that a longer video of the same size begins with the noise of a shorter one.
  const x = normal(fold(keyFromSeed(seed), 'latent noise'), elementCount(shape));
  if (start !== undefined) {
    const { data } = start.latents;
    for (const [i, e] of x.entries()) x[i] = (1 - start.from) * (data[i] ?? 0) + start.from * e;
  }
  const inFrame = elementCount(shape) / shape[0];
  for (const { at: first, latents } of known) x.set(latents.data, first * inFrame);
  return fromFloat32('f32', shape, x);
}

/** For each token how many latent frames it is from a known one: 0 where it is known, infinite where none is. */
function distancesToKnown({ known = [] }: Passage, [T, H, W]: TimeHeightWidth, patchTime: number): number[] {
  const distance = (frame: number) =>
    Math.min(
      Number.POSITIVE_INFINITY,
      ...known.map(({ at: first, latents: { shape } }) =>
        Math.max(0, first - frame, frame - (first + at(shape, 0) - 1)),
      ),
    );
  return Array.from({ length: T * H * W }, (_, token) => distance(Math.floor(token / (H * W)) * patchTime));
}

/** Latent frames from a known one at which guidance is whole: those of the longest clips of training. */
const guidanceReach = 6;

/**
 * Guidance rises with the distance from known frames (as in Stable Video Diffusion, Blattmann et al. 2023): beside them
 * they say what is to be seen, and what the prompt exaggerates would show as a jump.
 */
function guidanceShares(distances: readonly number[], channels: number): Float32Array | undefined {
  if (!distances.includes(0)) return undefined;
  return Float32Array.from({ length: distances.length * channels }, (_, i) =>
    Math.min(1, at(distances, Math.floor(i / channels)) / guidanceReach),
  );
}

/**
 * The velocity as training showed it: known tokens at timestep 0 have none and stay as they are.
 * @param known for each token.
 * @param channels values of a token.
 */
function keepingKnown(
  prompt: PromptVelocity,
  known: readonly boolean[],
  channels: number,
  signal: AbortSignal | undefined,
): Velocity {
  return async (x, t) => {
    signal?.throwIfAborted();
    const velocity = await prompt(
      x,
      Float32Array.from(known, (isKnown) => (isKnown ? 0 : t)),
    );
    for (const [token, isKnown] of known.entries()) {
      if (isKnown) velocity.fill(0, token * channels, (token + 1) * channels);
    }
    return velocity;
  };
}
