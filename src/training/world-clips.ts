import type { DetailLevel } from '../data/worlds/caption.ts';
import { renderWorld, WorldRenderer } from '../data/worlds/render.ts';
import { makeWorld, worldKey } from '../data/worlds/world.ts';
import { fold, keyFromSeed, RandomStream } from '../random/philox.ts';
import { type Video, videoFrom } from '../video/frames.ts';
import type { Variant, WorldsData } from './recipe.ts';

/** A rendered world with its captions. */
export interface WorldClip {
  readonly video: Video;
  readonly captions: { readonly [L in DetailLevel]: string };
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
  if (frames > 1) return { video: renderWorld(scene, { width, height, rate }), captions };
  const moment = new RandomStream(fold(key, 'moment')).uniform(0, seconds);
  const pixels = new Uint8Array(3 * width * height);
  new WorldRenderer(scene, width, height).frame(moment, pixels);
  return { video: videoFrom(pixels, { width, height, rate: 1 }), captions };
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
