import type { ConvolutionSpec } from '../../nn/convolution.ts';
import { type LinearSpec, linear, linearSpec } from '../../nn/linear.ts';
import type { Parameters } from '../../nn/parameters.ts';
import { at, expectShape, GraphError } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { type BorderCache, Borders } from './borders.ts';
import type { AutoencoderConfig, PerLevel } from './config.ts';
import {
  type BlockSpec,
  blockSpec,
  downsample,
  frameConvolution,
  frameConvolutionSpec,
  type Group,
  mergePositions,
  residualBlock,
  splitPositions,
  upsample,
} from './layers.ts';

/** Parameters of the encoder, in the order of use. */
export interface EncoderSpec {
  readonly patches: LinearSpec;
  readonly levels: readonly EncoderLevelSpec[];
  /** To the mean and the log variance of each latent channel. */
  readonly moments: LinearSpec;
}

/** One resolution of the encoder: blocks, then the step to the next coarser one, which the last has not. */
export interface EncoderLevelSpec {
  readonly blocks: readonly BlockSpec[];
  readonly down?: LinearSpec;
}

/** Parameters of the decoder, in the order of use. */
export interface DecoderSpec {
  readonly latent: LinearSpec;
  /** Coarsest first. */
  readonly levels: readonly DecoderLevelSpec[];
  readonly pixels: ConvolutionSpec;
}

/** One resolution of the decoder: blocks, then the step to the next finer one, which the last has not. */
export interface DecoderLevelSpec {
  readonly blocks: readonly BlockSpec[];
  readonly up?: LinearSpec;
}

/** Parameters of the autoencoder. */
export interface AutoencoderSpec {
  readonly encoder: EncoderSpec;
  readonly decoder: DecoderSpec;
}

/** The encoder's Gaussian at each latent position, both [B, T', H', W', C]. */
export interface Posterior {
  readonly mean: Tensor;
  readonly logVariance: Tensor;
}

/** Pixels of a side that become one position before the first layer. */
const patch: Group = [1, 2, 2];
const patchValues = 3 * patch[1] * patch[2];

/** Positions that one position of the next coarser level is made of. */
const grouped = 8;

/** Parameters of an autoencoder before they have values. */
export function autoencoderSpec(config: AutoencoderConfig): AutoencoderSpec {
  const { latentChannels, channels, encoderBlocks, decoderBlocks } = config;
  const [fine, , coarse] = channels;
  const blocks = (level: number, counts: readonly number[]) =>
    Array.from({ length: at(counts, level) }, () => blockSpec(at(channels, level)));
  return {
    encoder: {
      patches: linearSpec(patchValues, fine),
      levels: channels.map((width, level) => {
        const next = channels[level + 1];
        const down = next !== undefined && { down: linearSpec(grouped * width, next) };
        return { blocks: blocks(level, encoderBlocks), ...down };
      }),
      moments: linearSpec(coarse, 2 * latentChannels),
    },
    decoder: {
      latent: linearSpec(latentChannels, coarse),
      levels: [2, 1, 0].map((level) => {
        const next = channels[level - 1];
        const up = next !== undefined && { up: linearSpec(at(channels, level), grouped * next) };
        return { blocks: blocks(level, decoderBlocks), ...up };
      }),
      pixels: frameConvolutionSpec(fine, patchValues),
    },
  };
}

/**
 * How far the networks see. In space, in pixels to each side: what is further away has no influence. In time they see
 * nothing ahead, and back as many frames as `time` beyond the group of four that a latent stands for.
 */
export function receptiveField({ encoderBlocks, decoderBlocks }: AutoencoderConfig): ReceptiveFields {
  // A block sees one position to each side and two frames back, of 2x2, 4x4 or 8x8 pixels and 1, 2 or 4 frames.
  const sides = (blocks: PerLevel) => 2 * blocks[0] + 4 * blocks[1] + 8 * blocks[2];
  return {
    encoder: { space: sides(encoderBlocks), time: sides(encoderBlocks) },
    // The last layer sees one position more. Latents that pixels see are whole, so that this is an upper bound.
    decoder: { space: sides(decoderBlocks) + 2, time: sides(decoderBlocks) },
  };
}

/** Reach of a network in pixels and in frames, beyond the latent position that an input or output belongs to. */
export interface ReceptiveField {
  readonly space: number;
  readonly time: number;
}

/** The {@link ReceptiveField} of both networks. */
export interface ReceptiveFields {
  readonly encoder: ReceptiveField;
  readonly decoder: ReceptiveField;
}

/**
 * The posterior of a whole video: video [B, 1+4k, H, W, 3] in -1 to 1 -> [B, 1+k, H/8, W/8, C], not normalised.
 * Latent frame j depends on frames 0 to 4j alone; an image is a video of one frame.
 * @throws GraphError when the number of frames is not 1 + 4k or a side is not a multiple of 8.
 */
export function encode(p: Parameters<AutoencoderSpec>, config: AutoencoderConfig, video: Tensor): Posterior {
  return runEncoder(p.encoder, config, video, new Borders());
}

/** What one stretch of a video gives, and what the next one needs. */
export interface EncodedChunk {
  readonly posterior: Posterior;
  readonly cache: BorderCache;
}

/**
 * {@link encode}, a stretch at a time: without a cache the start of a video, [B, 1+4k, H, W, 3] -> [B, 1+k, ..]; with the
 * cache of the stretch before, [B, 4k, H, W, 3] -> [B, k, ..]. The results side by side are those of the whole.
 * @throws GraphError when the number of frames or a side does not fit.
 */
export function encodeChunk(
  p: Parameters<AutoencoderSpec>,
  config: AutoencoderConfig,
  chunk: Tensor,
  cache?: BorderCache,
): EncodedChunk {
  const borders = new Borders(cache);
  const posterior = runEncoder(p.encoder, config, chunk, borders);
  return { posterior, cache: borders.next };
}

function runEncoder(
  p: Parameters<EncoderSpec>,
  { latentChannels }: AutoencoderConfig,
  video: Tensor,
  borders: Borders,
): Posterior {
  const { T, H, W } = expectShape(video, 'B T H W 3', {}, 'autoencoder video');
  if ((T - Number(borders.atStart)) % 4 !== 0 || H % 8 !== 0 || W % 8 !== 0) {
    const frames = borders.atStart ? '1 + 4k frames' : '4k frames after the first stretch';
    throw new GraphError(
      `autoencoder video of ${T} frames of ${W}x${H}: give ${frames} and sides of multiples of 8`,
    );
  }
  let h = linear(p.patches, mergePositions(video, patch)); // [B, 1+4k, H/2, W/2, fine]
  for (const { blocks, down } of p.levels) {
    for (const block of blocks) h = residualBlock(block, h, borders);
    if (down !== undefined) h = downsample(down, h, borders); // [B, 1+2k, H/4, W/4, middle], [B, 1+k, H/8, W/8, coarse]
  }
  const moments = linear(p.moments, h); // [B, 1+k, H/8, W/8, 2C]
  return {
    mean: moments.slice(-1, 0, latentChannels),
    logVariance: moments.slice(-1, latentChannels),
  };
}

/**
 * The video of whole latents that are not normalised: z [B, 1+k, H', W', C] -> [B, 1+4k, 8H', 8W', 3], about -1 to 1
 * (not clamped). Frames up to 4j depend on latent frames 0 to j alone.
 */
export function decode(p: Parameters<AutoencoderSpec>, config: AutoencoderConfig, z: Tensor): Tensor {
  return runDecoder(p.decoder, config, z, new Borders());
}

/** What a stretch of latents decodes to, and what the next one needs. */
export interface DecodedChunk {
  readonly video: Tensor;
  readonly cache: BorderCache;
}

/**
 * {@link decode}, a stretch at a time: without a cache the start of a video, [B, 1+k, H', W', C] -> [B, 1+4k, ..]; with
 * the cache of the stretch before, [B, k, H', W', C] -> [B, 4k, ..]. The results side by side are those of the whole.
 */
export function decodeChunk(
  p: Parameters<AutoencoderSpec>,
  config: AutoencoderConfig,
  z: Tensor,
  cache?: BorderCache,
): DecodedChunk {
  const borders = new Borders(cache);
  const video = runDecoder(p.decoder, config, z, borders);
  return { video, cache: borders.next };
}

function runDecoder(
  p: Parameters<DecoderSpec>,
  { latentChannels }: AutoencoderConfig,
  z: Tensor,
  borders: Borders,
): Tensor {
  expectShape(z, 'B T H W C', { C: latentChannels }, 'autoencoder latents');
  let h = linear(p.latent, z); // [B, 1+k, H', W', coarse]
  for (const { blocks, up } of p.levels) {
    for (const block of blocks) h = residualBlock(block, h, borders);
    if (up !== undefined) h = upsample(up, h, borders); // [B, 1+2k, 2H', 2W', middle], [B, 1+4k, 4H', 4W', fine]
  }
  const patches = frameConvolution(p.pixels, h); // [B, 1+4k, 4H', 4W', 12]
  return splitPositions(patches, patch); // [B, 1+4k, 8H', 8W', 3]
}
