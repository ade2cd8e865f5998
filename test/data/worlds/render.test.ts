import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { groundTruth, objectTruth } from '../../../src/data/worlds/ground-truth.ts';
import { frameCount, renderWorld, WorldRenderer } from '../../../src/data/worlds/render.ts';
import {
  type Colour,
  colours,
  places,
  type Scene,
  shapes,
  times,
  weathers,
} from '../../../src/data/worlds/scene.ts';
import { randomScenes, sceneOf } from './scenes.ts';

const scenes = randomScenes(60, 6);
const sha = (data: Uint8Array) => createHash('sha256').update(data).digest('hex').slice(0, 16);

describe('rendering', () => {
  it('gives the same bytes for the same scene, for ever', () => {
    const hashes = scenes
      .slice(0, 6)
      .map((scene) => sha(renderWorld(scene, { width: 48, height: 32, rate: 4 }).data));
    expect(hashes).toMatchInlineSnapshot(`
      [
        "bd855841319c50da",
        "c7dab3b1ea9ffcd1",
        "536c9b732fe98e1b",
        "fbb01380a110d350",
        "3d30f480baa54b30",
        "f1143262c63a4a6c",
      ]
    `);
  });

  it('gives each frame alone as it gives it within the whole', () => {
    for (const scene of scenes.slice(0, 8)) {
      const video = renderWorld(scene, { width: 40, height: 24, rate: 8 });
      expect(video.frames).toBe(frameCount(scene, 8));
      const renderer = new WorldRenderer(scene, 40, 24);
      for (const i of [9, 0, 15]) {
        expect(sha(renderer.frame(i / 8))).toBe(sha(video.data.subarray(i * 2880, (i + 1) * 2880)));
      }
    }
  });

  it('paints every pixel at any size and aspect ratio', () => {
    for (const [width, height] of [
      [1, 1],
      [7, 3],
      [3, 7],
      [64, 16],
      [16, 64],
      [33, 47],
    ] as const) {
      for (const scene of scenes.slice(0, 10)) {
        // A pixel that is left out keeps the black of a new canvas; painting twice shows it.
        const renderer = new WorldRenderer(scene, width, height);
        const once = renderer.frame(0.3).slice();
        renderer.frame(1.7);
        expect(sha(renderer.frame(0.3))).toBe(sha(once));
      }
    }
  });

  it('painted twice as large and averaged is close to painted small', () => {
    let total = 0;
    for (const scene of scenes) {
      const small = new WorldRenderer(scene, 64, 64).frame(0.9);
      const large = halved(new WorldRenderer(scene, 128, 128).frame(0.9), 128, 128);
      let sum = 0;
      let far = 0;
      for (let i = 0; i < small.length; i++) {
        const difference = Math.abs(small[i]! - large[i]!);
        sum += difference;
        if (difference > 48) far++;
      }
      total += sum / small.length;
      expect(sum / small.length).toBeLessThan(4);
      expect(far / small.length).toBeLessThan(0.015);
    }
    expect(total / scenes.length).toBeLessThan(1.6);
  });
});

describe('ground truth agrees with the pixels', () => {
  const size = { width: 96, height: 72 };

  it('boxes are where the object covers pixels, centres within them', () => {
    let compared = 0;
    for (const scene of scenes) {
      const renderer = new WorldRenderer(scene, size.width, size.height);
      const truths = groundTruth(scene, { ...size, rate: 3 });
      for (const { time, objects } of truths) {
        for (const [index, { box, opacity }] of objects.entries()) {
          if (opacity < 1) continue;
          const found = boxOf(renderer.mask(index, time), size.width);
          const stated = [
            box[0] * size.width,
            box[1] * size.height,
            box[2] * size.width,
            box[3] * size.height,
          ];
          const bounds = [size.width, size.height, size.width, size.height];
          for (const [side, at] of stated.entries()) {
            const inFrame = Math.min(bounds[side]!, Math.max(0, at));
            // Soft coverage at tips (of stars, of cones) reaches half a pixel less or more.
            expect(Math.abs(found[side]! - inFrame)).toBeLessThan(1.1);
            compared++;
          }
        }
      }
    }
    expect(compared).toBeGreaterThan(2000);
  });

  it('a frame differs from the frame without the object in its box, its shadow and its reflection only', () => {
    const away = sceneOf({ colour: 'blue', position: { x: -0.9, height: 0.9, depth: 0 }, size: 'small' });
    for (const shape of shapes) {
      const here = sceneOf({ shape, position: { x: 0.6, height: 0.8, depth: 0.5 }, size: 'small' });
      const one = new WorldRenderer(here, 64, 64).frame(0);
      const other = new WorldRenderer(away, 64, 64).frame(0);
      const { box } = objectTruth(here, 1, 0, 0);
      let inside = 0;
      let outside = 0;
      // Only the sky on the right half: shadows lie on the ground.
      for (let y = 0; y < 30; y++) {
        for (let x = 32; x < 64; x++) {
          const at = 3 * (64 * y + x);
          const differs =
            one[at] !== other[at] || one[at + 1] !== other[at + 1] || one[at + 2] !== other[at + 2];
          const within =
            x + 1 > box[0] * 64 - 1 && x < box[2] * 64 + 1 && y + 1 > box[1] * 64 - 1 && y < box[3] * 64 + 1;
          if (differs && within) inside++;
          if (differs && !within) outside++;
        }
      }
      expect(outside).toBe(0);
      expect(inside).toBeGreaterThan(40);
    }
  });
});

describe('objects keep the colour that captions give them', () => {
  const conditions = places.flatMap((place): Scene['background'][] =>
    place === 'space'
      ? [{ place, time: 'night' as const, weather: 'clear' as const }]
      : times.flatMap((time) => weathers.map((weather) => ({ place, time, weather }))),
  );

  it.each(colours)('%s', (colour) => {
    let wrong = 0;
    let looked = 0;
    for (const [i, background] of conditions.entries()) {
      for (let s = 0; s < 3; s++) {
        const shape = shapes[(3 * i + s) % shapes.length]!;
        const finish = (['plain', 'striped', 'shiny'] as const)[(i + s) % 3]!;
        const scene = sceneOf({ shape, colour, finish }, { background, decor: 10 * i + s });
        const renderer = new WorldRenderer(scene, 64, 64);
        const seen = dominantColour(renderer.frame(0), renderer.mask(0, 0), finish === 'striped');
        looked++;
        if (seen !== colour) wrong++;
      }
    }
    expect(looked).toBeGreaterThan(140);
    expect(wrong).toBeLessThanOrEqual(1);
  });
});

/** Averages 2x2 pixels. */
function halved(data: Uint8Array, width: number, height: number): Uint8Array {
  const out = new Uint8Array(data.length / 4);
  for (let y = 0; y < height / 2; y++) {
    for (let x = 0; x < width / 2; x++) {
      for (let c = 0; c < 3; c++) {
        const at = (i: number, j: number) => data[3 * ((2 * y + j) * width + 2 * x + i) + c]!;
        out[3 * ((y * width) / 2 + x) + c] = Math.round((at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 4);
      }
    }
  }
  return out;
}

/** The box of a mask, its edges placed within pixels by how much of the outermost row or column is covered. */
function boxOf(mask: Float32Array, width: number): readonly [number, number, number, number] {
  let [left, top, right, bottom] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 0, 0];
  const most = new Map<string, number>();
  const keep = (edge: string, cover: number) => most.set(edge, Math.max(most.get(edge) ?? 0, cover));
  for (const [i, cover] of mask.entries()) {
    if (cover < 0.02) continue;
    const [x, y] = [i % width, Math.floor(i / width)];
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
    keep(`x${x}`, cover);
    keep(`y${y}`, cover);
  }
  const part = (edge: string) => most.get(edge) ?? 0;
  return [
    left + 1 - part(`x${left}`),
    top + 1 - part(`y${top}`),
    right + part(`x${right}`),
    bottom + part(`y${bottom}`),
  ];
}

const hues: readonly (readonly [Colour, from: number, to: number])[] = [
  ['red', 345, 375],
  ['orange', 15, 40],
  ['yellow', 40, 65],
  ['green', 100, 165],
  ['cyan', 165, 205],
  ['blue', 205, 250],
  ['purple', 250, 300],
  ['pink', 300, 345],
];

/** What most covered pixels would be called by hue alone: nothing here knows the palette. */
function dominantColour(frame: Uint8Array, mask: Float32Array, striped: boolean): Colour | undefined {
  const votes = new Map<Colour, number>();
  for (const [i, cover] of mask.entries()) {
    if (cover < 0.99) continue;
    const called = nameOf(frame[3 * i]!, frame[3 * i + 1]!, frame[3 * i + 2]!);
    if (called !== undefined) votes.set(called, (votes.get(called) ?? 0) + 1);
  }
  // Stripes are cream: white wins only where nothing else is there.
  const ordered = [...votes].sort((a, b) => b[1] - a[1]);
  const total = ordered.reduce((sum, [, count]) => sum + count, 0);
  const coloured = ordered.find(([name, count]) => name !== 'white' && count > 0.25 * total);
  return striped && coloured !== undefined ? coloured[0] : ordered[0]?.[0];
}

function nameOf(r: number, g: number, b: number): Colour | undefined {
  const high = Math.max(r, g, b);
  const range = high - Math.min(r, g, b);
  if (range < 0.25 * high || high < 70) return high > 120 ? 'white' : 'black';
  const hue =
    high === r
      ? ((g - b) / range) * 60
      : high === g
        ? 120 + ((b - r) / range) * 60
        : 240 + ((r - g) / range) * 60;
  const turned = hue < 15 ? hue + 360 : hue;
  return hues.find(([, from, to]) => (turned >= from && turned < to) || (hue >= from && hue < to))?.[0];
}
