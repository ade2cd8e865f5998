/**
 * Whether edits show their seams: the difference between the frames on both sides of each seam, against the 95th
 * percentile of the differences within the result, over held-out worlds. Of any clip's differences about one in twenty is
 * above that by definition: the share of the seams that are is printed with its 95% interval, beside the share of all
 * differences within rendered worlds of the same length. And how far the first new frames are from the world's own, where
 * it has them: a seam that is hidden by new frames that are wrong is none the better.
 *
 *     npx node bench/seams.ts [MODEL=micro] [CLIPS=8] [STEPS=30] [WORLDS=2024] [KINDS=image,forward,backward,join,loop]
 */
import { loadModel } from '../src/app.ts';
import { renderWorld } from '../src/data/worlds/render.ts';
import { makeWorld, worldKey } from '../src/data/worlds/world.ts';
import { proportion } from '../src/evaluation/interval.ts';
import { edit, planExtend, planJoin, planLoop } from '../src/pipeline/edit.ts';
import { generate } from '../src/pipeline/generate.ts';
import { givenVideo } from '../src/pipeline/given-video.ts';
import { frameAt, joinFrames, sliceFrames, type Video } from '../src/video/frames.ts';

const kinds = ['image', 'forward', 'backward', 'join', 'loop'] as const;
const [name = 'micro', clips = '8', steps = '30', worlds = '2024', asked = kinds.join()] =
  process.argv.slice(2);
await using model = await loadModel(name);
/** Frames of a given video, and of the video that is made from an image. */
const frames = 25;
/** Frames that are made between the parts of a join. */
const gap = 12;
/** New frames that are compared with the world's. */
const compared = 4;

/** Mean absolute difference of two frames, in levels of 0 to 255. */
function difference(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((sum, byte, i) => sum + Math.abs(byte - (b[i] ?? 0)), 0) / a.length;
}

/** Differences of each frame to the next. */
function differences(video: Video): number[] {
  return Array.from({ length: video.frames - 1 }, (_, k) =>
    difference(frameAt(video, k), frameAt(video, k + 1)),
  );
}

function percentile95(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(0.95 * values.length) - 1] ?? 0;
}

async function whole(stream: AsyncIterable<Video>): Promise<Video> {
  const pieces: Video[] = [];
  for await (const piece of stream) pieces.push(piece);
  return joinFrames(pieces);
}

/** Makes each kind's result from a world. What is joined belongs together: the world's middle is missing. */
function makers(world: Video, prompt: string, seed: number) {
  const base = { prompt, seed, steps: Number(steps) };
  const video = givenVideo(sliceFrames(world, 0, frames));
  const second = givenVideo(sliceFrames(world, frames + gap));
  const image = sliceFrames(world, 0, 1);
  const extended = async (backward: boolean) =>
    edit(model, await planExtend(model, { ...base, video, backward }));
  return {
    image: async () => generate(model, { ...base, frames, image }),
    forward: () => extended(false),
    backward: () => extended(true),
    join: async () => edit(model, await planJoin(model, { ...base, first: video, second, frames: gap })),
    loop: async () => edit(model, await planLoop(model, { ...base, video })),
  };
}

/** What is found of one kind. */
class Findings {
  /** Seams' differences, as shares of the 95th percentile. */
  readonly ratios: number[] = [];
  /** Differences within rendered worlds, likewise. */
  readonly natural: number[] = [];
  /** Distances of new frames from the world's own. */
  readonly errors: number[] = [];

  print(kind: string): void {
    const { right: above, asked: seams, low, high } = proportion(over(this.ratios), this.ratios.length);
    const percent = (share: number) => (100 * share).toFixed(1);
    const median = this.ratios.toSorted((a, b) => a - b)[seams >> 1] ?? 0;
    const mean = this.errors.reduce((sum, error) => sum + error, 0) / this.errors.length;
    const base = over(this.natural) / this.natural.length;
    console.log(
      `${kind}: ${seams - above} of ${seams} seams at most the 95th percentile; ${percent(above / seams)}% above ` +
        `(${percent(low)} to ${percent(high)}), of worlds' changes ${percent(base)}%; median ${median.toFixed(2)} of it` +
        (this.errors.length === 0
          ? ''
          : `; the first ${compared} new frames are ${mean.toFixed(1)} levels from true ones`),
    );
  }
}

function over(ratios: readonly number[]): number {
  return ratios.filter((ratio) => ratio > 1).length;
}

const findings = new Map(
  kinds.filter((kind) => asked.split(',').includes(kind)).map((kind) => [kind, new Findings()]),
);

for (let i = 0; i < Number(clips); i++) {
  const options = { split: 'held-out', choices: { cameras: ['still'], counts: [1, 2] } } as const;
  const { scene, captions } = makeWorld(worldKey(Number(worlds), i), {
    seconds: (2 * frames + gap) / 12,
    ...options,
  });
  const world = renderWorld(scene, { width: 64, height: 64, rate: 12 });
  const make = makers(world, captions.medium, i);
  for (const [kind, found] of findings) {
    const result = await whole(await make[kind]());
    const last = result.frames - 1;
    // A loop's end is followed by its beginning.
    const inside = differences(kind === 'loop' ? joinFrames([result, sliceFrames(result, 0, 1)]) : result);
    const limit = percentile95(inside);
    const { seams, first } = {
      image: { seams: [0], first: 1 },
      forward: { seams: [frames - 1], first: frames },
      backward: { seams: [last - frames], first: undefined },
      join: { seams: [frames - 1, frames + gap - 1], first: frames },
      loop: { seams: [frames - 1, last], first: undefined },
    }[kind];
    found.ratios.push(...seams.map((seam) => (inside[seam] ?? 0) / limit));
    const natural = differences(sliceFrames(world, 0, inside.length + 1));
    found.natural.push(...natural.map((value) => value / percentile95(natural)));
    if (first === undefined) continue;
    for (let k = first; k < first + compared; k++)
      found.errors.push(difference(frameAt(result, k), frameAt(world, k)));
  }
}
for (const [kind, found] of findings) found.print(kind);
