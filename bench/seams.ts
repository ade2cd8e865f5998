/**
 * Whether edits show their seams: the difference between the frames on both sides of each seam, against the 95th
 * percentile of the differences within the result, over held-out worlds. And how far the first new frames are from the
 * world's own, where it has them: a seam that is hidden by new frames that are wrong is none the better.
 *
 *     npx node bench/seams.ts [MODEL=micro] [CLIPS=8] [STEPS=30]
 */
import { loadModel } from '../src/app.ts';
import { renderWorld } from '../src/data/worlds/render.ts';
import { makeWorld, worldKey } from '../src/data/worlds/world.ts';
import { edit, planExtend, planJoin, planLoop } from '../src/pipeline/edit.ts';
import { generate } from '../src/pipeline/generate.ts';
import { givenVideo } from '../src/pipeline/given-video.ts';
import { frameAt, joinFrames, sliceFrames, type Video } from '../src/video/frames.ts';

const [name = 'micro', clips = '8', steps = '30'] = process.argv.slice(2);
await using model = await loadModel(name);
const frames = 25;
/** Frames that are made between the parts of a join. */
const gap = 12;

/** Mean absolute difference of two frames, in levels of 0 to 255. */
function difference(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((sum, byte, i) => sum + Math.abs(byte - (b[i] ?? 0)), 0) / a.length;
}

async function whole(stream: AsyncIterable<Video>): Promise<Video> {
  const pieces: Video[] = [];
  for await (const piece of stream) pieces.push(piece);
  return joinFrames(pieces);
}

const kinds = ['image', 'forward', 'backward', 'join', 'loop'] as const;
const ratios = new Map(kinds.map((kind) => [kind, [] as number[]]));
const errors = new Map(kinds.map((kind) => [kind, [] as number[]]));
/** New frames that are compared with the world's. */
const compared = 4;

for (let i = 0; i < Number(clips); i++) {
  const options = { split: 'held-out', choices: { cameras: ['still'], counts: [1, 2] } } as const;
  const { scene, captions } = makeWorld(worldKey(2024, i), { seconds: (2 * frames + gap) / 12, ...options });
  const world = renderWorld(scene, { width: 64, height: 64, rate: 12 });
  const video = sliceFrames(world, 0, frames);
  const base = { prompt: captions.medium, seed: i, steps: Number(steps) };
  const given = { ...base, video: givenVideo(video) };
  // What is joined belongs together: a world whose middle is missing.
  const second = givenVideo(sliceFrames(world, frames + gap));
  const results = {
    image: await whole(generate(model, { ...base, frames, image: sliceFrames(video, 0, 1) })),
    forward: await whole(edit(model, await planExtend(model, given))),
    backward: await whole(edit(model, await planExtend(model, { ...given, backward: true }))),
    join: await whole(
      edit(model, await planJoin(model, { ...base, first: given.video, second, frames: gap })),
    ),
    loop: await whole(edit(model, await planLoop(model, given))),
  };
  for (const kind of kinds) {
    const result = results[kind];
    const between = Array.from({ length: result.frames }, (_, k) =>
      difference(frameAt(result, k), frameAt(result, (k + 1) % result.frames)),
    );
    const last = result.frames - 1;
    const seams = {
      image: [0],
      forward: [frames - 1],
      backward: [last - frames],
      join: [frames - 1, frames + gap - 1],
      loop: [frames - 1, last],
    }[kind];
    const inside = (kind === 'loop' ? between : between.slice(0, last)).toSorted((a, b) => a - b);
    const limit = inside[Math.ceil(0.95 * inside.length) - 1] ?? 0;
    for (const seam of seams) ratios.get(kind)?.push((between[seam] ?? 0) / limit);
    const first = { image: 1, forward: frames, backward: undefined, join: frames, loop: undefined }[kind];
    if (first === undefined) continue;
    for (let k = first; k < first + compared; k++)
      errors.get(kind)?.push(difference(frameAt(result, k), frameAt(world, k)));
  }
}

for (const [kind, found] of ratios) {
  const below = found.filter((ratio) => ratio <= 1).length;
  const median = found.toSorted((a, b) => a - b)[found.length >> 1] ?? 0;
  const wrong = errors.get(kind) ?? [];
  const mean = wrong.reduce((sum, error) => sum + error, 0) / wrong.length;
  console.log(
    `${kind}: ${below} of ${found.length} seams at most the 95th percentile; median ${median.toFixed(2)} of it` +
      (wrong.length === 0
        ? ''
        : `; the first ${compared} new frames are ${mean.toFixed(1)} levels from true ones`),
  );
}
