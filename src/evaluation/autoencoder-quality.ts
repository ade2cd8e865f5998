import type { LatentCodec } from '../pipeline/latent-codec.ts';
import { joinFrames, type Video } from '../video/frames.ts';
import { type ClipShape, heldOutClip } from './held-out-clips.ts';
import { flickerOf, meanSquaredError, psnrOf, ssim } from './picture-quality.ts';

/** How well an autoencoder gives held-out clips back. */
export interface AutoencoderQuality {
  readonly clips: number;
  /** Of the mean squared error over all clips, in decibels. */
  readonly psnr: number;
  /** Of the worst clip. */
  readonly leastPsnr: number;
  /** Mean structural similarity of luma, at most 1. */
  readonly ssim: number;
  /** Flicker relative to that of the originals, over all clips: 1 for what flickers no more; 0 for stills. */
  readonly flicker: number;
}

/** How a long measurement is watched and stopped. */
export interface MeasureHooks {
  readonly signal?: AbortSignal | undefined;
  /** Told how many units are done. */
  readonly onProgress?: ((done: number) => void) | undefined;
}

/**
 * Encodes and decodes rendered worlds of the held-out split.
 * @throws the signal's reason when it is aborted.
 */
export async function measureAutoencoder(
  codec: LatentCodec,
  shape: ClipShape,
  { seed, clips }: { readonly seed: number; readonly clips: number },
  { signal, onProgress }: MeasureHooks = {},
): Promise<AutoencoderQuality> {
  const errors: number[] = [];
  let [similarity, flicker, original] = [0, 0, 0];
  for (let index = 0; index < clips; index++) {
    signal?.throwIfAborted();
    const { video } = heldOutClip(seed, index, shape);
    const again = await reconstructed(codec, video);
    errors.push(meanSquaredError(video, again));
    similarity += ssim(video, again) / clips;
    flicker += flickerOf(again);
    original += flickerOf(video);
    onProgress?.(index + 1);
  }
  const mean = errors.reduce((sum, error) => sum + error, 0) / clips;
  return {
    clips,
    psnr: psnrOf(mean),
    leastPsnr: psnrOf(Math.max(...errors)),
    ssim: similarity,
    flicker: original > 0 ? flicker / original : 0,
  };
}

/** A video as it comes back from its latents. */
export async function reconstructed(codec: LatentCodec, video: Video): Promise<Video> {
  const latents = await codec.encode(video);
  const pieces: Video[] = [];
  for await (const piece of codec.decode(latents, { rate: video.rate, frames: video.frames }))
    pieces.push(piece);
  return joinFrames(pieces);
}
