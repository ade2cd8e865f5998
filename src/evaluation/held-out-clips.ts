import { describe } from '../data/worlds/caption.ts';
import { renderWorld } from '../data/worlds/render.ts';
import { sampleScene } from '../data/worlds/sample.ts';
import { fold, keyFromSeed } from '../random/philox.ts';
import type { Size, Video } from '../video/frames.ts';

/** Size, length and rate of clips. */
export interface ClipShape extends Size {
  readonly frames: number;
  /** Frames per second. */
  readonly rate: number;
}

/** A rendered world of the held-out split, with any number of objects, camera and weather, and its medium caption. */
export function heldOutClip(
  seed: number,
  index: number,
  { width, height, frames, rate }: ClipShape,
): { readonly video: Video; readonly caption: string } {
  const key = fold(fold(keyFromSeed(seed), 'held-out clips'), index);
  const scene = sampleScene(fold(key, 'scene'), { seconds: frames / rate, split: 'held-out' });
  return {
    video: renderWorld(scene, { width, height, rate }),
    caption: describe(scene, 'medium', fold(key, 'words')),
  };
}
