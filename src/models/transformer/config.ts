import { UserError } from '../../errors.ts';
import type { TextConfig } from '../text/text-encoder.ts';

/** Three sizes or places, in the order of a latent video's axes. */
export type TimeHeightWidth = readonly [time: number, height: number, width: number];

/** Sizes of a text-to-video transformer and of its text encoder. Checked by {@link checkTransformerConfig}. */
export interface TransformerConfig {
  /** Channels of the latents. */
  readonly channels: number;
  /** Latent positions of one video token. */
  readonly patch: TimeHeightWidth;
  /** Channels of a token; a multiple of the head size. */
  readonly width: number;
  /** Channels of an attention head; even, at least 16. */
  readonly headSize: number;
  /** Transformer blocks. */
  readonly layers: number;
  /** Hidden units of the feed-forward layers. */
  readonly hidden: number;
  readonly text: TextConfig;
}

function preset(
  width: number,
  layers: number,
  headSize: number,
  textWidth: number,
  textLayers: number,
): TransformerConfig {
  return {
    channels: 16,
    patch: [1, 2, 2],
    width,
    headSize,
    layers,
    hidden: 4 * width,
    text: { width: textWidth, headSize: 64, layers: textLayers, hidden: 4 * textWidth },
  };
}

/**
 * Configurations by name: `micro` for a laptop's CPU and worlds of 64x64 pixels, the others for GPUs. Micro gives its
 * parameters, 6 million at most with the text encoder, to depth rather than to wide feed-forward layers.
 */
export const transformerPresets = {
  micro: {
    ...preset(256, 8, 64, 128, 3),
    hidden: 608,
    text: { width: 128, headSize: 32, layers: 3, hidden: 384 },
  },
  nano: preset(384, 12, 64, 192, 4),
  small: preset(768, 12, 128, 384, 6),
  base: preset(1024, 24, 128, 512, 6),
  large: preset(1536, 32, 128, 768, 8),
  xl: preset(2048, 40, 128, 1024, 12),
} as const satisfies Record<string, TransformerConfig>;

/** Name of a preset. */
export type TransformerPreset = keyof typeof transformerPresets;

/** Values of one patch: latent positions times channels. */
export function patchChannels({ channels, patch: [time, height, width] }: TransformerConfig): number {
  return channels * time * height * width;
}

/** Latent positions of so many video tokens. */
export function latentPositions({ patch: [time, height, width] }: TransformerConfig, tokens: number): number {
  return tokens * time * height * width;
}

/**
 * A configuration from data of unknown form, such as a model file's metadata.
 * @throws UserError naming the first entry that is missing or wrong, and the value found.
 */
export function checkTransformerConfig(value: unknown): TransformerConfig {
  const entry = entriesOf(value, '');
  const text = entriesOf(entry('text'), 'text');
  const config: TransformerConfig = {
    channels: count('channels', entry('channels')),
    patch: patchOf(entry('patch')),
    width: count('width', entry('width')),
    headSize: count('headSize', entry('headSize')),
    layers: count('layers', entry('layers')),
    hidden: count('hidden', entry('hidden')),
    text: {
      width: count('text.width', text('width')),
      headSize: count('text.headSize', text('headSize')),
      layers: count('text.layers', text('layers')),
      hidden: count('text.hidden', text('hidden')),
    },
  };
  checkHeads('', config, 16);
  checkHeads('text.', config.text, 2);
  return config;
}

const subject = 'transformer configuration';

function entriesOf(value: unknown, name: string): (entry: string) => unknown {
  if (typeof value !== 'object' || value === null) {
    const what = name === '' ? subject : `${subject}: ${name}`;
    throw new UserError(`${what} is ${JSON.stringify(value)}; it must be an object`);
  }
  return (entry) => (value as Record<string, unknown>)[entry];
}

function count(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value;
  throw new UserError(`${subject}: ${name} is ${JSON.stringify(value)}; use a whole number of at least 1`);
}

function patchOf(value: unknown): TimeHeightWidth {
  if (!Array.isArray(value) || value.length !== 3) {
    throw new UserError(`${subject}: patch is ${JSON.stringify(value)}; give [time, height, width]`);
  }
  const [time, height, width] = value as unknown[];
  return [count('patch', time), count('patch', height), count('patch', width)];
}

function checkHeads(
  prefix: string,
  { width, headSize }: Pick<TransformerConfig, 'width' | 'headSize'>,
  least: number,
): void {
  if (headSize % 2 !== 0 || headSize < least) {
    throw new UserError(
      `${subject}: ${prefix}headSize is ${headSize}; use an even number of at least ${least}`,
    );
  }
  if (width % headSize !== 0) {
    throw new UserError(
      `${subject}: ${prefix}width is ${width}; use a multiple of ${prefix}headSize ${headSize}`,
    );
  }
}
