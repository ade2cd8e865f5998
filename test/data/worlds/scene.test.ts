import { describe, expect, it } from 'vitest';
import { checkScene, parseScene, serialiseScene } from '../../../src/data/worlds/parse-scene.ts';
import { UserError } from '../../../src/errors.ts';
import { randomScenes, sceneOf } from './scenes.ts';

function failure(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
  return 'accepted';
}

describe('scenes as JSON', () => {
  it('come back as they were', () => {
    for (const scene of randomScenes(100, 1)) expect(parseScene(serialiseScene(scene))).toEqual(scene);
  });

  const bounce = { kind: 'bounce', direction: 'right', pace: 'slow', phase: 0 } as const;
  const wrong: readonly [name: string, value: unknown, message: RegExp][] = [
    ['no object', null, /^scene: must be an object/],
    ['a list', [], /^scene: must be an object/],
    ['a missing field', { ...sceneOf(), camera: undefined }, /^scene\.camera: must be/],
    ['an unknown field', { ...sceneOf(), colour: 'red' }, /unknown field 'colour'/],
    ['no objects', { ...sceneOf(), objects: [] }, /^scene\.objects: must be a list of 1 to 4/],
    ['five objects', { ...sceneOf(), objects: Array(5).fill(sceneOf().objects[0]) }, /1 to 4/],
    ['no duration', { ...sceneOf(), seconds: 0 }, /above 0/],
    [
      'an endless duration',
      { ...sceneOf(), seconds: 1e9 },
      /^scene\.seconds: 1000000000 is not a number from 0 to 600/,
    ],
    ['a fractional seed', { ...sceneOf(), decor: 0.5 }, /not a whole number/],
    [
      'an unknown shape',
      sceneOf({ shape: 'blob' as 'ball' }),
      /^scene\.objects\[0\]\.shape: "blob" is not one of ball,/,
    ],
    ['a position outside', sceneOf({ position: { x: 2, height: 0, depth: 0 } }), /position\.x: 2 is not/],
    ['a large one that grows', sceneOf({ size: 'large', motion: { kind: 'grow' } }), /cannot grow/],
    ['a small one that shrinks', sceneOf({ size: 'small', motion: { kind: 'shrink' } }), /cannot shrink/],
    [
      'no way to go',
      sceneOf({ position: { x: 0.9, height: 0.5, depth: 0 }, motion: bounce }),
      /no way to go right/,
    ],
    ['a low bounce', sceneOf({ motion: bounce }), /too low to bounce/],
    ['rain in space', sceneOf({}, { background: { place: 'space', weather: 'rain' } }), /in space/],
    ['following nobody', sceneOf({ motion: { kind: 'follow', target: 0 } }), /another object/],
    [
      'circling nobody',
      sceneOf({ motion: { kind: 'orbit', turn: 'clockwise', around: 3, pace: 'slow', phase: 0 } }),
      /another object/,
    ],
    [
      'an invisible spin',
      sceneOf({ motion: { kind: 'spin', turn: 'clockwise', pace: 'slow', phase: 0 } }),
      /looks the same turned/,
    ],
    [
      'a pan without direction',
      { ...sceneOf(), camera: { kind: 'pan' } },
      /^scene\.camera\.direction: is missing/,
    ],
    [
      'a still camera with one',
      { ...sceneOf(), camera: { kind: 'still', direction: 'left' } },
      /unknown field/,
    ],
  ];
  it.each(wrong)('are refused with one clear line: %s', (_name, value, message) => {
    const said = failure(() => checkScene(value));
    expect(said).toMatch(message);
    expect(said).not.toContain('\n');
    expect(said.length).toBeLessThan(200);
  });

  it('are refused when they are not JSON, or are huge', () => {
    expect(failure(() => parseScene('{"seconds":'))).toMatch(/not valid JSON/);
    expect(failure(() => parseScene(`"${'x'.repeat(200_000)}"`))).toMatch(/longer than/);
    expect(failure(() => parseScene('['.repeat(50_000)))).toMatch(/not valid JSON/);
  });
});
