import type { DetailLevel } from '../data/worlds/caption.ts';
import { renderWorld, WorldRenderer } from '../data/worlds/render.ts';
import type { Scene } from '../data/worlds/scene.ts';
import { makeWorld, worldKey } from '../data/worlds/world.ts';
import type { LatentSpec } from '../models/latent-spec.ts';
import { fold, keyFromSeed, RandomStream } from '../random/philox.ts';
import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { type Video, videoFrom } from '../video/frames.ts';
import type { Variant, WorldsData } from './recipe.ts';

/** A rendered world with its captions. */
export interface WorldClip {
  readonly video: Video;
  readonly captions: { readonly [L in DetailLevel]: string };
  /** How much of each pixel objects cover in frame `frame`: 0 to 1, [height, width]. */
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
  if (frames > 1) {
    const coverage = (frame: number) => coverageAt(scene, variant, frame / rate);
    return { video: renderWorld(scene, { width, height, rate }), captions, coverage };
  }
  const moment = new RandomStream(fold(key, 'moment')).uniform(0, seconds);
  const pixels = new Uint8Array(3 * width * height);
  new WorldRenderer(scene, width, height).frame(moment, pixels);
  const coverage = () => coverageAt(scene, variant, moment);
  return { video: videoFrom(pixels, { width, height, rate: 1 }), captions, coverage };
}

/** The most that any object covers of each pixel at a moment. */
function coverageAt(scene: Scene, { width, height }: Variant, time: number): Float32Array {
  const renderer = new WorldRenderer(scene, width, height);
  const covered = new Float32Array(width * height);
  for (const object of scene.objects.keys()) {
    for (const [i, share] of renderer.mask(object, time).entries())
      covered[i] = Math.max(covered[i] ?? 0, share);
  }
  return covered;
}

/**
 * How much of each latent position of a clip objects cover, f16 [T', H', W'], 0 to 1: of the last frame that it stands for.
 * @param latent strides of the autoencoder.
 */
export function latentCoverage(
  { video, coverage }: WorldClip,
  latent: Pick<LatentSpec, 'stride'>,
): HostTensor<'f16'> {
  const [time, rows, columns] = latent.stride;
  const [count, height, width] = [
    1 + Math.ceil((video.frames - 1) / time),
    video.height / rows,
    video.width / columns,
  ];
  const shares = new Float32Array(count * height * width);
  for (let frame = 0; frame < count; frame++) {
    for (const [pixel, share] of coverage(Math.min(video.frames - 1, frame * time)).entries()) {
      const [y, x] = [Math.floor(pixel / video.width), pixel % video.width];
      const position = (frame * height + Math.floor(y / rows)) * width + Math.floor(x / columns);
      shares[position] = (shares[position] ?? 0) + share / (rows * columns);
    }
  }
  return fromFloat32('f16', [count, height, width], shares);
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
