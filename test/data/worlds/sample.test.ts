import { describe, expect, it } from 'vitest';
import { objectTruth } from '../../../src/data/worlds/ground-truth.ts';
import { checkScene } from '../../../src/data/worlds/parse-scene.ts';
import { sampleScene } from '../../../src/data/worlds/sample.ts';
import {
  cameraKinds,
  colours,
  finishes,
  motionKinds,
  places,
  shapes,
  sizes,
  times,
  weathers,
} from '../../../src/data/worlds/scene.ts';
import { holdout, splitOf } from '../../../src/data/worlds/split.ts';
import { UserError } from '../../../src/errors.ts';
import { fold, keyFromSeed } from '../../../src/random/philox.ts';
import { randomScenes } from './scenes.ts';

const key = keyFromSeed(3);

describe('random scenes', () => {
  const scenes = randomScenes(500, 4);

  it('keep the rules of the scene language', () => {
    for (const scene of scenes) expect(checkScene(JSON.parse(JSON.stringify(scene)))).toEqual(scene);
  });

  it('are the same for the same key and others for others', () => {
    expect(sampleScene(key)).toEqual(sampleScene(key));
    expect(new Set(scenes.map((scene) => JSON.stringify(scene))).size).toBe(scenes.length);
  });

  it('use the whole vocabulary, no word of a list four times as often as another', () => {
    const objects = scenes.flatMap((scene) => scene.objects);
    const even = (all: readonly string[], seen: readonly string[], factor = 4) => {
      const counts = all.map((word) => seen.filter((other) => other === word).length);
      expect(Math.min(...counts), `${all} ${counts}`).toBeGreaterThan(0);
      expect(Math.max(...counts) / Math.min(...counts), `${all} ${counts}`).toBeLessThan(factor);
    };
    even(
      shapes,
      objects.map(({ shape }) => shape),
    );
    even(
      colours,
      objects.map(({ colour }) => colour),
    );
    even(
      sizes,
      objects.map(({ size }) => size),
      8,
    );
    even(
      finishes,
      objects.map(({ finish }) => finish),
    );
    even(
      places,
      scenes.map(({ background }) => background.place),
    );
    even(
      times,
      scenes.map(({ background }) => background.time),
    );
    even(
      weathers,
      scenes.map(({ background }) => background.weather),
      10,
    );
    even(
      cameraKinds,
      scenes.map(({ camera }) => camera.kind),
      20,
    );
    even(
      motionKinds,
      objects.map(({ motion }) => motion.kind),
      12,
    );
    even(
      ['1', '2', '3', '4'],
      scenes.map(({ objects }) => String(objects.length)),
      20,
    );
  });

  it('keep objects in square, wide and tall frames', () => {
    for (const scene of scenes.slice(0, 150)) {
      for (const aspect of [1, 16 / 9, 9 / 16, 4 / 3]) {
        for (let time = 0; time < scene.seconds; time += 0.25) {
          for (let i = 0; i < scene.objects.length; i++) {
            const { box } = objectTruth(scene, aspect, i, time);
            expect(Math.min(box[0], box[1])).toBeGreaterThan(-0.06);
            expect(Math.max(box[2], box[3])).toBeLessThan(1.06);
          }
        }
      }
    }
  });

  it('obey choices', () => {
    const choices = {
      shapes: ['heart'],
      colours: ['blue', 'red'],
      motions: ['spin'],
      places: ['city'],
      counts: [2],
    } as const;
    for (let i = 0; i < 20; i++) {
      const { objects, background } = sampleScene(fold(key, i), { choices });
      expect(background.place).toBe('city');
      expect(objects).toHaveLength(2);
      for (const { shape, motion } of objects) expect([shape, motion.kind]).toEqual(['heart', 'spin']);
    }
  });

  it('say so when nothing can be found', () => {
    expect(() => sampleScene(key, { choices: { motions: ['follow'], counts: [1] } })).toThrow(UserError);
  });
});

describe('the held-out split', () => {
  it('is about a tenth of all combinations, and the same for ever', () => {
    const all = shapes.flatMap((shape) =>
      colours.flatMap((colour) =>
        motionKinds.flatMap((motion) => places.map((place) => ({ shape, colour, motion, place }))),
      ),
    );
    const held = all.filter(holdout);
    expect(held.length / all.length).toBeGreaterThan(0.085);
    expect(held.length / all.length).toBeLessThan(0.115);
    // Changing the split would spoil every evaluation of models trained before.
    expect(held.slice(0, 3)).toMatchInlineSnapshot(`
      [
        {
          "colour": "red",
          "motion": "bounce",
          "place": "sea",
          "shape": "ball",
        },
        {
          "colour": "red",
          "motion": "spin",
          "place": "city",
          "shape": "ball",
        },
        {
          "colour": "red",
          "motion": "fall",
          "place": "meadow",
          "shape": "ball",
        },
      ]
    `);
    // Every shape with every colour is still seen in training.
    for (const shape of shapes) {
      for (const colour of colours) {
        const seen = all.some((one) => one.shape === shape && one.colour === colour && !holdout(one));
        expect(seen).toBe(true);
      }
    }
  });

  it('divides scenes', () => {
    for (const split of ['train', 'held-out'] as const) {
      for (const scene of randomScenes(40, 5, { split })) {
        expect(splitOf(scene)).toBe(split);
        const held = scene.objects.map(({ shape, colour, motion }) =>
          holdout({ shape, colour, motion: motion.kind, place: scene.background.place }),
        );
        expect(held.includes(true)).toBe(split === 'held-out');
      }
    }
  });
});
