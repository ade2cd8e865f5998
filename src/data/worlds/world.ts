import { fold, type Key, keyFromSeed } from '../../random/philox.ts';
import { captionsOf, type DetailLevel } from './caption.ts';
import { type SampleOptions, sampleScene } from './sample.ts';
import type { Scene } from './scene.ts';

/** One procedural clip: a scene and what captions say of it. */
export interface World {
  readonly scene: Scene;
  readonly captions: { readonly [L in DetailLevel]: string };
}

/** The world of a key; the same key and options give the same world. */
export function makeWorld(key: Key, options: SampleOptions = {}): World {
  const scene = sampleScene(fold(key, 'scene'), options);
  return { scene, captions: captionsOf(scene, fold(key, 'words')) };
}

/** The key of world `index` of the data set of a seed: worlds can be made in any order, each without the others. */
export function worldKey(seed: number, index: number): Key {
  return fold(fold(keyFromSeed(seed), 'worlds'), index);
}
