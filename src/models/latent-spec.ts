/**
 * What the autoencoder's latents are like: all that the models behind it need to know of it.
 */
export interface LatentSpec {
  /** Channels of a latent position. */
  readonly channels: number;
  /** Frames, rows and columns of pixels per latent position: [time, height, width]. */
  readonly stride: readonly [time: number, height: number, width: number];
  /** Mean of each channel over training latents. */
  readonly mean: readonly number[];
  /** Standard deviation of each channel over training latents, above 0. */
  readonly std: readonly number[];
}

/** Shape of a latent video without batch: [time, height, width, channels]. */
export type LatentShape = readonly [time: number, height: number, width: number, channels: number];

/**
 * The latent shape of a video: the first frame is a latent frame of its own, then each `stride[0]` frames are one.
 * A number of frames that is not 1 + k stride[0] is rounded up, as padding at the end does.
 *
 * @param size height and width in pixels, multiples of the strides.
 */
export function latentShapeOf(
  { channels, stride: [time, rows, columns] }: LatentSpec,
  frames: number,
  size: { readonly height: number; readonly width: number },
): LatentShape {
  return [1 + Math.ceil((frames - 1) / time), size.height / rows, size.width / columns, channels];
}

/** Number of frames that `latentFrames` latent frames decode to: 1 + (latentFrames - 1) stride[0]. */
export function framesOf({ stride: [time] }: LatentSpec, latentFrames: number): number {
  return 1 + (latentFrames - 1) * time;
}
