import { describe, expect, it } from 'vitest';
import { renderWorld } from '../../src/data/worlds/render.ts';
import { sampleScene } from '../../src/data/worlds/sample.ts';
import { colours, motionKinds, type Scene, shapes } from '../../src/data/worlds/scene.ts';
import { type Degradation, degraded } from '../../src/evaluation/degrade.ts';
import { WorldMeter } from '../../src/evaluation/measure-world.ts';
import { fold, keyFromSeed } from '../../src/random/philox.ts';
import { videoFrom } from '../../src/video/frames.ts';

const key = keyFromSeed(2027);
const frame = { width: 64, height: 64, rate: 12 };
const kinds = motionKinds.filter((kind) => kind !== 'follow');

/** Each place once: what the meter renders to know a background takes as long as measuring. */
const backgrounds = [
  { places: ['meadow'], times: ['day'] },
  { places: ['sea'], times: ['sunset'] },
  { places: ['desert'], times: ['dawn'] },
  { places: ['city'], times: ['night'] },
  { places: ['space'], times: ['night'] },
] as const;

/** Single objects before still cameras in clear weather: each shape, colour and motion as often as the others. */
function scenesOf(count: number): Scene[] {
  return Array.from({ length: count }, (_, i) =>
    sampleScene(fold(key, i), {
      seconds: 25 / 12,
      choices: {
        shapes: [shapes[i % shapes.length]!],
        // Shifted by one each time around, so that all combinations come up in the end.
        colours: colours.filter((_, c) => c % 3 === (i + Math.floor(i / 10)) % 3),
        motions: [kinds[(3 * i + Math.floor(i / 10)) % kinds.length]!],
        ...backgrounds[i % backgrounds.length],
        cameras: ['still'],
        weathers: ['clear'],
        counts: [1],
      },
    }),
  );
}

/** Shares of scenes of which each attribute is seen rightly, and what was seen otherwise. */
function measured(scenes: readonly Scene[], meter: WorldMeter, spoiling?: Degradation) {
  const wrong: string[] = [];
  const right = { colour: 0, shape: 0, motion: 0, place: 0, time: 0 };
  for (const [i, scene] of scenes.entries()) {
    const video = renderWorld(scene, frame);
    const seen = meter.measure(spoiling === undefined ? video : degraded(video, spoiling, fold(key, i)));
    const object = scene.objects[0]!;
    const found = seen.objects[0];
    const way = (motion?: object) => {
      const { kind, direction, turn } = (motion ?? {}) as {
        kind?: string;
        direction?: string;
        turn?: string;
      };
      return `${kind} ${direction ?? turn ?? ''}`;
    };
    const verdicts = {
      colour: found?.colour === object.colour,
      shape: found?.shape === object.shape,
      motion: way(found?.motion) === way(object.motion),
      place: seen.place === scene.background.place,
      time: seen.time === scene.background.time,
    };
    for (const [name, isRight] of Object.entries(verdicts)) {
      if (isRight) right[name as keyof typeof right]++;
      else wrong.push(`scene ${i}: ${name} ${JSON.stringify(object)} ${JSON.stringify(seen)}`);
    }
  }
  return { shares: Object.values(right).map((count) => count / scenes.length), wrong };
}

describe('worlds measured from pixels', () => {
  const meter = new WorldMeter();

  it('are seen as they are in 98 of 100 renderings at least', () => {
    const { shares, wrong } = measured(scenesOf(20), meter);
    for (const share of shares) expect(share, wrong.join('\n')).toBeGreaterThanOrEqual(0.98);
  });

  it('are seen through the blur and noise of a decoder', () => {
    const { shares, wrong } = measured(scenesOf(20).slice(0, 6), meter, { blur: 0.7, noise: 5 });
    for (const share of shares) expect(share, wrong.join('\n')).toBeGreaterThanOrEqual(5 / 6);
  });

  it('are told from the same without objects, and from each other', () => {
    const [scene] = scenesOf(1);
    const empty = { ...scene!, objects: [] };
    const video = renderWorld(empty, frame);
    expect(meter.measure(video).objects.filter(({ unexplained }) => unexplained < 0.5)).toEqual([]);
  });

  it('show no motion in a still', () => {
    const scene = scenesOf(1)[0]!;
    const { data } = renderWorld(scene, frame);
    const still = videoFrom(data.slice(0, 3 * 64 * 64), { ...frame, rate: 1 });
    const [object] = meter.measure(still).objects;
    expect([object!.colour, object!.shape, object!.motion]).toEqual([
      scene.objects[0]!.colour,
      scene.objects[0]!.shape,
      undefined,
    ]);
  });
});
