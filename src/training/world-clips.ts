import type { DetailLevel } from '../data/worlds/caption.ts';
import { WorldRenderer } from '../data/worlds/render.ts';
import { makeWorld, worldKey } from '../data/worlds/world.ts';
import { type LatentSpec, latentShapeOf } from '../models/latent-spec.ts';
import { fold, keyFromSeed, RandomStream } from '../random/philox.ts';
import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { at, elementCount } from '../tensor/shape.ts';
import { type Video, videoFrom } from '../video/frames.ts';
import type { Variant, WorldsData } from './recipe.ts';

/** A rendered world with its captions. */
export interface WorldClip {
  readonly video: Video;
  readonly captions: { readonly [L in DetailLevel]: string };
  /** How much of each pixel of a frame objects cover, 0 to 1, [height, width]: the most that any of them does. */
  readonly coverage: (frame: number) => Float32Array;
}

/** Duration of the scene of which a still shows one moment, in seconds. */
const stillSeconds = 2;

/** World `index` of the recipe's, rendered at a variant's size; the same arguments give the same bytes. */
export function worldClip(data: WorldsData, index: number, variant: Variant): WorldClip {
  const { width, height, frames } = variant;
  const { rate, split, choices } = data;
  const key = worldKey(data.seed, index);
  const seconds = frames === 1 ? stillSeconds : frames / rate;
  const { scene, captions } = makeWorld(key, { seconds, split, ...(choices && { choices }) });
  const moments =
    frames === 1
      ? [new RandomStream(fold(key, 'moment')).uniform(0, seconds)]
      : Array.from({ length: frames }, (_, frame) => frame / rate);
  const renderer = new WorldRenderer(scene, width, height);
  const bytes = 3 * width * height;
  const pixels = new Uint8Array(bytes * frames);
  for (const [i, moment] of moments.entries())
    renderer.frame(moment, pixels.subarray(bytes * i, bytes * (i + 1)));
  return {
    video: videoFrom(pixels, { width, height, rate: frames === 1 ? 1 : rate }),
    captions,
    coverage: (frame) => renderer.coverage(at(moments, frame)),
  };
}

/**
 * How much of each latent position of a clip objects cover, 0 to 1, f32 [T', H', W']: in the last of the frames that a
 * latent frame stands for, which of latent frame k is frame k stride.
 */
export function latentCoverage({ video, coverage }: WorldClip, latent: LatentSpec): HostTensor<'f32'> {
  const [time, rows, columns] = latent.stride;
  const [count, height, width] = latentShapeOf(latent, video.frames, video);
  const shape = [count, height, width];
  const shares = new Float32Array(elementCount(shape));
  for (let frame = 0; frame < count; frame++) {
    const covered = coverage(Math.min(video.frames - 1, frame * time));
    for (const [pixel, share] of covered.entries()) {
      if (share === 0) continue;
      const [y, x] = [Math.floor(pixel / video.width), pixel % video.width];
      const position = (frame * height + Math.floor(y / rows)) * width + Math.floor(x / columns);
      shares[position] = (shares[position] ?? 0) + share / (rows * columns);
    }
  }
  return fromFloat32('f32', shape, shares);
}

/** Which variant number `index` of a series is, by the variants' weights. */
export function drawVariant(
  variants: readonly Variant[],
  seed: number,
  purpose: string,
  index: number,
): number {
  const total = variants.reduce((sum, { weight }) => sum + weight, 0);
  let left = new RandomStream(fold(fold(keyFromSeed(seed), purpose), index)).uniform(0, total);
  const drawn = variants.findIndex(({ weight }) => {
    left -= weight;
    return left < 0;
  });
  return drawn < 0 ? variants.length - 1 : drawn;
}

/** A variant's name, such as `64x64x25` (width, height, frames). */
export function variantName({ width, height, frames }: Variant): string {
  return `${width}x${height}x${frames}`;
}

/** Writes 8-bit pixels as -1 to 1 into `target` from `offset` on. */
export function writePixels({ data }: Video, target: Float32Array, offset: number): void {
  for (let i = 0; i < data.length; i++) target[offset + i] = (data[i] ?? 0) / 127.5 - 1;
}
