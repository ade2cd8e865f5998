import { UserError } from '../../errors.ts';
import { at } from '../../tensor/shape.ts';
import type { LatentSpec } from '../latent-spec.ts';

/** One number for each resolution, finest first: 1/2, 1/4 and 1/8 of the sides, 1, 1/2 and 1/4 of the frames. */
export type PerLevel = readonly [fine: number, middle: number, coarse: number];

/** Sizes of an autoencoder, and the statistics of its latents. Checked by {@link checkAutoencoderConfig}. */
export interface AutoencoderConfig {
  /** Channels of a latent position; 1 or more. */
  readonly latentChannels: number;
  /** Channels of each level, in the encoder and in the decoder alike. */
  readonly channels: PerLevel;
  /** Residual blocks of each level of the encoder; 0 or more. */
  readonly encoderBlocks: PerLevel;
  /** Residual blocks of each level of the decoder; 0 or more. */
  readonly decoderBlocks: PerLevel;
  /** Mean of each latent channel, measured after training; until then zeros. */
  readonly latentMean: readonly number[];
  /** Standard deviation of each latent channel, measured after training; until then ones. */
  readonly latentStd: readonly number[];
}

/** Frames, rows and columns per latent position: the same for every configuration. */
export const latentStride = [4, 8, 8] as const;

function preset(sizes: Omit<AutoencoderConfig, 'latentMean' | 'latentStd'>): AutoencoderConfig {
  const { latentChannels } = sizes;
  return {
    ...sizes,
    latentMean: new Array<number>(latentChannels).fill(0),
    latentStd: new Array<number>(latentChannels).fill(1),
  };
}

/** Configurations by name: `micro` for a laptop's CPU, `small` and `base` for GPUs. */
export const autoencoderPresets = {
  micro: preset({
    latentChannels: 16,
    channels: [64, 96, 128],
    encoderBlocks: [1, 2, 1],
    decoderBlocks: [3, 3, 2],
  }),
  small: preset({
    latentChannels: 16,
    channels: [64, 128, 256],
    encoderBlocks: [2, 2, 2],
    decoderBlocks: [3, 3, 3],
  }),
  base: preset({
    latentChannels: 16,
    channels: [96, 192, 384],
    encoderBlocks: [2, 3, 3],
    decoderBlocks: [3, 4, 4],
  }),
} as const;

/** Name of a preset. */
export type AutoencoderPreset = keyof typeof autoencoderPresets;

/** What the models behind the autoencoder may know of it. */
export function latentSpec({ latentChannels, latentMean, latentStd }: AutoencoderConfig): LatentSpec {
  return { channels: latentChannels, stride: latentStride, mean: latentMean, std: latentStd };
}

/**
 * A configuration from data of unknown form, such as a model file's metadata.
 * @throws UserError naming the first entry that is missing or wrong, and the value found.
 */
export function checkAutoencoderConfig(value: unknown): AutoencoderConfig {
  if (typeof value !== 'object' || value === null) {
    throw new UserError(`autoencoder configuration ${JSON.stringify(value)}: must be an object`);
  }
  const entry = (name: keyof AutoencoderConfig): unknown => (value as Record<string, unknown>)[name];
  const list = (name: keyof AutoencoderConfig, length: number, rule: Rule) =>
    checkNumbers(name, entry(name), length, rule);
  const perLevel = (name: keyof AutoencoderConfig, rule: Rule): PerLevel => {
    const levels = list(name, 3, rule);
    return [at(levels, 0), at(levels, 1), at(levels, 2)];
  };
  const latentChannels = at(checkNumbers('latentChannels', [entry('latentChannels')], 1, counting), 0);
  return {
    latentChannels,
    channels: perLevel('channels', counting),
    encoderBlocks: perLevel('encoderBlocks', whole),
    decoderBlocks: perLevel('decoderBlocks', whole),
    latentMean: list('latentMean', latentChannels, finite),
    latentStd: list('latentStd', latentChannels, positive),
  };
}

interface Rule {
  readonly says: string;
  readonly holds: (value: number) => boolean;
}

const counting: Rule = { says: 'a whole number of at least 1', holds: (n) => Number.isInteger(n) && n >= 1 };
const whole: Rule = { says: 'a whole number of at least 0', holds: (n) => Number.isInteger(n) && n >= 0 };
const finite: Rule = { says: 'a finite number', holds: Number.isFinite };
const positive: Rule = { says: 'a finite number above 0', holds: (n) => Number.isFinite(n) && n > 0 };

function checkNumbers(name: string, value: unknown, length: number, { says, holds }: Rule): number[] {
  const subject = `autoencoder configuration: ${name}`;
  if (!Array.isArray(value) || value.length !== length) {
    throw new UserError(`${subject} is ${JSON.stringify(value)}; give a list of ${length} numbers`);
  }
  return value.map((item: unknown) => {
    if (typeof item === 'number' && holds(item)) return item;
    throw new UserError(`${subject} has ${JSON.stringify(item)}; use ${says}`);
  });
}
