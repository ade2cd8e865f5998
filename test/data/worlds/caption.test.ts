import { describe, expect, it } from 'vitest';
import { describe as caption, captionsOf, detailLevels } from '../../../src/data/worlds/caption.ts';
import { objectTruth, relationBetween } from '../../../src/data/worlds/ground-truth.ts';
import { imagine } from '../../../src/data/worlds/imagine.ts';
import { interpret, type ObjectSketch, type Sketch } from '../../../src/data/worlds/interpret.ts';
import { colourWords } from '../../../src/data/worlds/lexicon.ts';
import { colours, type Scene, type SceneObject } from '../../../src/data/worlds/scene.ts';
import { UserError } from '../../../src/errors.ts';
import { fold, keyFromSeed } from '../../../src/random/philox.ts';
import { randomScenes, sceneOf } from './scenes.ts';

const scenes = randomScenes(400, 8);
const keyOf = (i: number) => fold(keyFromSeed(9), i);

/** What a caption can say of an object; what it leaves out is undefined. */
function said(object: SceneObject) {
  const { motion } = object;
  const way = motion.kind === 'slide' || motion.kind === 'bounce' ? motion.direction : 'in place';
  const paced = 'pace' in motion && motion.pace !== 'steady' ? motion.pace : undefined;
  return {
    shape: object.shape,
    colour: object.colour,
    size: object.size,
    finish: object.finish,
    motion: motion.kind,
    direction: way === 'in place' ? undefined : way,
    turn: 'turn' in motion ? motion.turn : undefined,
    pace: paced,
  };
}
function read(sketch: ObjectSketch): ReturnType<typeof said> {
  const { shape, colour, size, finish, motion, direction, turn, pace } = sketch;
  return {
    shape,
    colour,
    size,
    finish,
    motion,
    direction,
    turn,
    pace: pace === 'steady' ? undefined : pace,
  } as ReturnType<typeof said>;
}
const ordered = (list: readonly object[]) => list.map((entry) => JSON.stringify(entry)).sort();

describe('detailed captions', () => {
  it('say everything: read back, they give the scene', () => {
    for (const [i, scene] of scenes.entries()) {
      const text = caption(scene, 'detailed', keyOf(i));
      const sketch = interpret(text);
      const objects = sketch.objects.flatMap((object) =>
        Array.from({ length: object.count }, () => read(object)),
      );
      expect(ordered(objects), text).toEqual(ordered(scene.objects.map(said)));
      const { place, time, weather } = scene.background;
      expect(sketch.place, text).toBe(place);
      expect(sketch.camera, text).toEqual(scene.camera);
      if (place === 'space') continue;
      expect([sketch.time, sketch.weather], text).toEqual([time, weather]);
    }
  });

  it('relate objects as they are in every frame, and followers to whom they follow', () => {
    let relations = 0;
    let sides = 0;
    for (const [i, scene] of scenes.entries()) {
      const text = caption(scene, 'detailed', keyOf(i));
      const { objects } = interpret(text);
      const indexOf = (sketch: ObjectSketch) =>
        scene.objects.findIndex((object) => JSON.stringify(said(object)) === JSON.stringify(read(sketch)));
      for (const sketch of objects) {
        const index = indexOf(sketch);
        const object = scene.objects[index]!;
        if (sketch.relation !== undefined) {
          const other = indexOf(objects[sketch.relation.to]!);
          expect(relationBetween(scene, index, other), text).toBe(sketch.relation.kind);
          const [a, b] = [objectTruth(scene, 1, index, 0.4), objectTruth(scene, 1, other, 0.4)];
          if (sketch.relation.kind === 'left of') expect(a.centre[0]).toBeLessThan(b.centre[0]);
          if (sketch.relation.kind === 'above') expect(a.centre[1]).toBeLessThan(b.centre[1]);
          relations++;
        }
        if (sketch.side !== undefined) {
          const x = objectTruth(scene, 1, index, 0.4).centre[0];
          expect(x < 0.36 ? 'left' : x > 0.64 ? 'right' : 'middle', text).toBe(sketch.side);
          sides++;
        }
        const { motion } = object;
        const target =
          motion.kind === 'follow' ? motion.target : motion.kind === 'orbit' ? motion.around : null;
        if (target !== null) expect(indexOf(objects[sketch.target!]!), text).toBe(target);
      }
    }
    expect(relations).toBeGreaterThan(30);
    expect(sides).toBeGreaterThan(30);
  });
});

describe('every caption', () => {
  const texts = scenes.flatMap((scene, i) =>
    detailLevels.map((level) => ({ scene, level, text: caption(scene, level, keyOf(i)) })),
  );

  it('says nothing that is not so', () => {
    for (const { scene, text } of texts) expectTrue(scene, interpret(text), text);
  });

  it('names the colours of the scene and no other', () => {
    for (const { scene, text } of texts) {
      const words = new Set(text.toLowerCase().match(/[a-z]+/g));
      // Grass is green whatever is on it.
      const plain = text.toLowerCase().replace(/green (grass|meadow)/g, '');
      for (const colour of colours) {
        const named = colourWords[colour].some((word) => words.has(word) && plain.includes(word));
        if (named)
          expect(
            scene.objects.map((object) => object.colour),
            text,
          ).toContain(colour);
      }
    }
  });

  it('is well-formed English', () => {
    for (const { text } of texts) {
      expect(text).not.toMatch(/undefined| {2}| ,| \.|,,|\.\.|^ | $/);
      expect(text).not.toMatch(/\ba [aeiou]|\ban [^aeiou]/i);
      expect(text.length).toBeGreaterThan(8);
      expect(text.length).toBeLessThan(700);
    }
  });

  it('grows with its level', () => {
    const mean = (level: string) => {
      const lengths = texts.filter((entry) => entry.level === level).map(({ text }) => text.length);
      return lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
    };
    expect(mean('medium')).toBeGreaterThan(1.3 * mean('short'));
    expect(mean('detailed')).toBeGreaterThan(1.3 * mean('medium'));
  });

  it('has many wordings, and one for each key', () => {
    const scene = sceneOf(
      {
        motion: { kind: 'bounce', direction: 'in place', pace: 'steady', phase: 0 },
        position: { x: 0, height: 0.8, depth: 0.5 },
      },
      { background: { time: 'sunset' } },
    );
    const wordings = new Set(Array.from({ length: 300 }, (_, i) => caption(scene, 'short', keyOf(i))));
    expect(wordings.size).toBeGreaterThan(100);
    expect([...wordings].some((text) => text.startsWith('a red ball bounces'))).toBe(true);
    expect(caption(scene, 'short', keyOf(1))).toBe(caption(scene, 'short', keyOf(1)));
  });

  it('stays as it is', () => {
    expect(scenes.slice(0, 3).map((scene, i) => captionsOf(scene, keyOf(i)))).toMatchInlineSnapshot(`
      [
        {
          "detailed": "We are in the city by day under a clear sky. A big matte pink ring drops from the sky. A small plain violet drum lies still, to the left of the pink ring. The camera does not move.",
          "medium": "A big pink ring drops from the sky in the city by day, while a purple cylinder lies still.",
          "short": "a pink hoop to the right of a violet drum in the city at midday",
        },
        {
          "detailed": "We are over green grass at sunrise under a clear sky. A medium-sized plain black star turns anticlockwise fast, on the left side. The camera does not move.",
          "medium": "A black star turns counterclockwise over green grass at dawn.",
          "short": "a black star turning over green grass",
        },
        {
          "detailed": "The scene is set over green grass by day under a clear sky. A medium-sized matte black pill floats up. The camera stays still.",
          "medium": "A black pill floats up into the sky in a green meadow at midday.",
          "short": "a medium-sized black pill floats up into the sky in a green meadow",
        },
      ]
    `);
  });
});

/** No field of a sketch that is there contradicts the scene. */
function expectTrue(scene: Scene, sketch: Sketch, text: string): void {
  const { place, time, weather } = scene.background;
  if (sketch.place !== undefined) expect(sketch.place, text).toBe(place);
  if (sketch.time !== undefined) expect(sketch.time, text).toBe(time);
  if (sketch.weather !== undefined) expect(sketch.weather, text).toBe(weather);
  if (sketch.camera !== undefined) expect(sketch.camera, text).toEqual(scene.camera);
  const left = [...scene.objects];
  for (const object of sketch.objects) {
    for (let i = 0; i < object.count; i++) {
      const match = left.findIndex((candidate) => {
        const truth: Record<string, unknown> = said(candidate);
        return Object.entries(read(object)).every(
          ([name, value]) => value === undefined || truth[name] === value,
        );
      });
      expect(match, text).toBeGreaterThanOrEqual(0);
      left.splice(match, 1);
    }
  }
  expect(left, text).toEqual([]);
}

describe('imagine', () => {
  it('makes a scene of a typed prompt', () => {
    const scene = imagine('a red ball bounces on green grass at sunset', keyOf(0));
    expect(scene.background).toMatchObject({ place: 'meadow', time: 'sunset' });
    expect(scene.objects).toMatchObject([{ shape: 'ball', colour: 'red', motion: { kind: 'bounce' } }]);
    const three = imagine(
      'Three shiny blue stars spinning clockwise in the snow; the camera zooms in',
      keyOf(1),
    );
    expect(three.objects).toHaveLength(3);
    expect(three.objects[2]).toMatchObject({
      shape: 'star',
      colour: 'blue',
      motion: { kind: 'spin', turn: 'clockwise' },
    });
    expect([three.background.weather, three.camera]).toEqual(['snow', { kind: 'zoom', direction: 'in' }]);
    expect(imagine('something nice in the desert', keyOf(2)).background.place).toBe('desert');
  });

  it('puts objects where the text has them', () => {
    for (let i = 0; i < 12; i++) {
      const scene = imagine('a red ball to the left of a blue cube in the desert', keyOf(i));
      expect(relationBetween(scene, 0, 1)).toBe('left of');
      const follows = imagine('a pink star follows a green cone', keyOf(i));
      expect(follows.objects[0]!.motion).toEqual({ kind: 'follow', target: 1 });
      const circles = imagine('a pink star orbits a green cone anticlockwise', keyOf(i)).objects[0]!.motion;
      expect(circles).toMatchObject({ kind: 'orbit', around: 1, turn: 'counterclockwise' });
    }
  });

  it('takes back what detailed captions say', () => {
    for (const [i, scene] of scenes.slice(0, 80).entries()) {
      const text = caption(scene, 'detailed', keyOf(i));
      const again = imagine(text, keyOf(1000 + i));
      expect(ordered(again.objects.map(said)), text).toEqual(ordered(scene.objects.map(said)));
      expect(again.camera).toEqual(scene.camera);
    }
  });

  it('says in one line what cannot be shown', () => {
    for (const text of ['a large red ball grows in the city', 'three red balls and two blue cubes']) {
      expect(() => imagine(text, keyOf(3))).toThrow(UserError);
    }
  });

  it('reads any text without harm', () => {
    for (const text of [
      '',
      'the the the',
      '🙂'.repeat(1000),
      'ball '.repeat(5000),
      'a red ball to the left of',
      'orbits follows',
    ]) {
      expect(() => interpret(text)).not.toThrow();
    }
  });
});
