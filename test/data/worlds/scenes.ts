import { sampleScene } from '../../../src/data/worlds/sample.ts';
import type { Background, Motion, Scene, SceneObject } from '../../../src/data/worlds/scene.ts';
import { fold, keyFromSeed } from '../../../src/random/philox.ts';

/** `count` random scenes of a seed. */
export function randomScenes(
  count: number,
  seed: number,
  options: Parameters<typeof sampleScene>[1] = {},
): Scene[] {
  return Array.from({ length: count }, (_, i) => sampleScene(fold(keyFromSeed(seed), i), options));
}

/** A still scene of one medium red ball in the middle of a meadow by day, changed as given. */
export function sceneOf(
  object: Partial<SceneObject> = {},
  change: Partial<Omit<Scene, 'background'>> & { background?: Partial<Background> } = {},
): Scene {
  const still: Motion = { kind: 'still' };
  const ball: SceneObject = {
    shape: 'ball',
    colour: 'red',
    size: 'medium',
    finish: 'plain',
    position: { x: 0, height: 0, depth: 0.5 },
    motion: still,
  };
  const { background, ...others } = change;
  return {
    seconds: 2,
    camera: { kind: 'still' },
    objects: [{ ...ball, ...object }],
    decor: 7,
    ...others,
    background: { place: 'meadow', time: 'day', weather: 'clear', ...background },
  };
}
