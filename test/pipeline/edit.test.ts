import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, describe, expect, it } from 'vitest';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { type EditPlan, edit, planExtend, planJoin, planLoop } from '../../src/pipeline/edit.ts';
import { contextFrames, type EditEnds, latentsAtSeams, layoutEdit } from '../../src/pipeline/edit-layout.ts';
import { estimateEdit } from '../../src/pipeline/estimate.ts';
import { endsOf, type GivenVideo, givenVideo } from '../../src/pipeline/given-video.ts';
import type { StageProgress } from '../../src/pipeline/progress.ts';
import { framesToPutBack, putBack, seamOf } from '../../src/pipeline/put-back.ts';
import { sampleLatents } from '../../src/pipeline/sampling.ts';
import { blendSeam, type Seam } from '../../src/pipeline/seam.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { frameAt, joinFrames, sliceFrames, type Video, videoFrom } from '../../src/video/frames.ts';
import { collect, pattern, tinyModel } from './tiny-model.ts';

const model = tinyModel(openOnnxExecutor());
afterAll(() => model[Symbol.asyncDispose]());

const usual = { prompt: 'a red ball', seed: 7, steps: 2 } as const;
const made = async (plan: EditPlan) => joinFrames(await collect(edit(model, plan)));
const reversed = (video: Video): Video => {
  const bytes = video.width * video.height * 3;
  const data = new Uint8Array(video.data.length);
  for (let i = 0; i < video.frames; i++)
    data.set(video.data.subarray(i * bytes, (i + 1) * bytes), (video.frames - 1 - i) * bytes);
  return { ...video, data };
};

/** In pieces of three frames, counting how often it is gone through. */
function inPieces(video: Video): GivenVideo & { readonly passes: () => number } {
  let passes = 0;
  return {
    ...givenVideo(video),
    passes: () => passes,
    frames: async function* () {
      passes++;
      for (let i = 0; i < video.frames; i += 3) yield sliceFrames(video, i, i + 3);
    },
  };
}

describe('the layout of an edit', () => {
  const stride = 4;
  const counts = Array.from({ length: 21 }, (_, i) => i + 1);

  it.each(counts)('%d new frames lie exactly between whole latent frames, whatever is given', (frames) => {
    for (const before of [undefined, 1, 4, 5, 9, 100]) {
      for (const after of [undefined, 7, 8, 11, 15, 100]) {
        const layout = layoutEdit({ before, after, frames }, stride);
        expect(layout.to - layout.from).toBe(frames);
        if (layout.before === undefined) expect(before).toBeUndefined();
        else {
          // Known frames end with a latent frame; behind them are those that are shared.
          const { frames: known, shared } = layout.before;
          expect((known - 1) % stride).toBe(0);
          expect(known + shared).toBe(layout.from);
          expect(layout.from).toBeLessThanOrEqual(before!);
          // Sharing takes no motion away that could be known.
          expect(known > 1).toBe(before! > stride);
          if (before! >= 3 && before !== 5) expect(shared).toBeGreaterThan(0);
        }
        if (layout.after === undefined) {
          expect(after).toBeUndefined();
          // No whole latent frame is sampled in vain.
          const decoded = 1 + (layout.latentFrames - 1) * stride;
          expect(decoded).toBeGreaterThanOrEqual(layout.to);
          expect(decoded - layout.to).toBeLessThan(stride);
          continue;
        }
        const { at, shared, groups } = layout.after;
        // Known latent frame `at` begins, in pixels, exactly where given frame `shared` stands.
        expect(1 + (at - 1) * stride).toBe(layout.to + shared);
        expect(shared).toBeLessThan(stride);
        if (before === undefined || before > 6) expect(shared).toBeGreaterThan(0);
        expect(shared + groups * stride).toBeLessThanOrEqual(after!);
        expect(groups).toBeGreaterThan(0);
        expect(layout.latentFrames).toBe(at + groups);
      }
    }
  });

  it('knows nothing after a video that is too short', () => {
    expect(layoutEdit({ after: 3, frames: 5 }, stride).after?.groups).toBe(0);
  });

  it('never asks for more than the ends that were kept', () => {
    const most = contextFrames(stride);
    for (const frames of counts) {
      const { before, after } = layoutEdit({ before: 1000, after: 1000, frames }, stride);
      expect(before!.frames + before!.shared).toBeLessThanOrEqual(most.before);
      expect(after!.shared + after!.groups * stride).toBeLessThanOrEqual(most.after);
    }
  });
});

describe('latent frames at seams', () => {
  const stride = 4;
  const seams = (ends: EditEnds) =>
    latentsAtSeams(layoutEdit(ends, stride), stride).map(({ from, to }) => [from, to]);

  it('are that of the given frame beside the new ones, and the new one next to it', () => {
    // Given frames to pixel frame 9, the first of latent frame 3.
    expect(seams({ before: 100, frames: 16 })).toEqual([[3, 5]]);
    // Pixel frames 0 to 15 are new, 16 is given and the last of latent frame 4.
    expect(seams({ after: 100, frames: 16 })).toEqual([[3, 5]]);
    // Pixel frames 0 to 9 are given, 10 to 21 new, 22 is given and in latent frame 6.
    expect(seams({ before: 100, after: 100, frames: 12 })).toEqual([
      [3, 5],
      [5, 7],
    ]);
    // All that is new lies in latent frame 3.
    expect(seams({ before: 100, frames: 2 })).toEqual([[3, 4]]);
    // Pixel frame 3 is new, behind three surplus ones.
    expect(seams({ after: 100, frames: 1 })).toEqual([[0, 2]]);
  });
});

describe('the ends of a video', () => {
  it.each([1, 2, 3, 8, 20])('of %d frames are found piece by piece', async (frames) => {
    const video = pattern(frames);
    const ends = await endsOf(inPieces(video), { first: 5, last: 4 });
    expect(ends.count).toBe(frames);
    expect(ends.first.data).toEqual(sliceFrames(video, 0, 5).data);
    expect(ends.last.data).toEqual(sliceFrames(video, Math.max(0, frames - 4)).data);
  });

  it('are not there without frames', async () => {
    await expect(endsOf(givenVideo(sliceFrames(pattern(1), 1)), { first: 1, last: 1 })).rejects.toThrow(
      'video: has no frames; give a video',
    );
  });
});

describe('edits', () => {
  it.each([1, 5, 8, 16])('extend by %d frames after given ones, which stay as they are', async (frames) => {
    const video = inPieces(pattern(11));
    const plan = await planExtend(model, { ...usual, video, frames });
    const result = await made(plan);
    expect(result.frames).toBe(11 + frames);
    expect(sliceFrames(result, 0, 11).data).toEqual(pattern(11).data);
    expect([...result.timestamps]).toEqual(Array.from({ length: 11 + frames }, (_, i) => i / 12));
    expect(video.passes()).toBe(2);
    expect(plan.extent).toEqual({ width: 16, height: 16, rate: 12, frames: 11 + frames });
  });

  it.each([1, 4, 5, 6, 7, 16])(
    'extend by %d frames before given ones, which stay as they are',
    async (frames) => {
      const video = inPieces(pattern(11));
      const result = await made(await planExtend(model, { ...usual, video, frames, backward: true }));
      expect(result.frames).toBe(11 + frames);
      expect(sliceFrames(result, frames).data).toEqual(pattern(11).data);
    },
  );

  it.each([1, 3, 4, 6])('join two videos by %d frames', async (frames) => {
    const [a, b] = [pattern(7), reversed(pattern(9))];
    const plan = await planJoin(model, { ...usual, first: inPieces(a), second: inPieces(b), frames });
    const result = await made(plan);
    expect(result.frames).toBe(7 + frames + 9);
    expect(sliceFrames(result, 0, 7).data).toEqual(a.data);
    expect(sliceFrames(result, 7 + frames).data).toEqual(b.data);
    expect(estimateEdit(model, plan).videoTokens).toBe(plan.layout.latentFrames * 4);
  });

  it('loop a video by frames after it', async () => {
    const result = await made(await planLoop(model, { ...usual, video: inPieces(pattern(9)), seconds: 0.5 }));
    expect(result.frames).toBe(9 + 6);
    expect(sliceFrames(result, 0, 9).data).toEqual(pattern(9).data);
  });

  it('add frames that depend on the given ones on each side, and on their prompt', async () => {
    const [a, b] = [pattern(9), reversed(pattern(11))];
    const between = async (first: Video, second: Video, prompt: string = usual.prompt) => {
      const given = { first: givenVideo(first), second: givenVideo(second) };
      const plan = await planJoin(model, { ...usual, ...given, prompt, frames: 13 });
      return sliceFrames(await made(plan), first.frames, first.frames + 13);
    };
    const all = await Promise.all([
      between(a, b),
      between(reversed(a), b),
      between(a, reversed(b)),
      between(a, b, 'x'),
    ]);
    // The middle is beyond the reach of what is blended at the seams.
    const middles = all.map((video) => sliceFrames(video, 6, 7).data.join());
    expect(new Set(middles).size).toBe(4);
    expect((await between(a, b)).data).toEqual(all[0]!.data);
  });

  it('decode new frames as the continuation of the given ones', async () => {
    const video = pattern(9);
    const plan = await planExtend(model, { ...usual, video: givenVideo(video), frames: 4 });
    const result = await made(plan);
    // Frames 3 to 7 are known, frame 8 shares a latent frame with new ones.
    const latents = await model.codec.encode(sliceFrames(video, 3, 8));
    const better = (expected: HostTensor<'f32'>) => putBack(model.codec, expected, plan, {});
    const correction = { frames: new Set([2, 3]), better };
    const passage = { shape: [4, 2, 2, 4] as const, known: [{ at: 0, latents }], correction };
    const whole = await sampleLatents(model.field, model.config, passage, plan.settings);
    expect(whole.data.subarray(0, latents.data.length)).toEqual(latents.data);
    const frames = joinFrames(await collect(model.codec.decode(whole, { rate: 12 })));
    const frame = (from: Video, i: number) => [...frameAt(from, i)];
    const expected = frame(frames, 6).map((byte, i) => {
      const lost = frame(video, 8)[i]! - frame(frames, 5)[i]!;
      return Math.min(255, Math.max(0, byte + 0.8 * lost));
    });
    const found = frame(result, 9);
    for (const [i, byte] of found.entries()) expect(Math.abs(byte - expected[i]!)).toBeLessThanOrEqual(0.5);
  });

  it('tell each step and correction, and stop at once when told to', async () => {
    const plan = await planExtend(model, {
      ...usual,
      video: givenVideo(pattern(9)),
      frames: 5,
      backward: true,
    });
    const told: string[] = [];
    await collect(
      edit(model, plan, { onProgress: ({ stage, done, total }) => told.push(`${stage} ${done}/${total}`) }),
    );
    // Two steps, and a correction between them.
    const sampling = told.filter((line) => line.startsWith('sampling'));
    expect(sampling).toEqual(['sampling 0/3', 'sampling 1/3', 'sampling 2/3', 'sampling 3/3']);
    for (const last of sampling.slice(0, 3)) {
      const controller = new AbortController();
      const seen: string[] = [];
      const hooks = {
        signal: controller.signal,
        onProgress: ({ stage, done, total }: StageProgress) => {
          seen.push(`${stage} ${done}/${total}`);
          if (seen.at(-1) === last) controller.abort(new Error('enough'));
        },
      };
      await expect(collect(edit(model, plan, hooks))).rejects.toThrow('enough');
      expect(seen.at(-1)).toBe(last);
    }
  });

  it('refuse what cannot be fitted, before anything is sampled', async () => {
    const short = givenVideo(pattern(6), 'short.mp4');
    await expect(planExtend(model, { ...usual, video: short, frames: 6, backward: true })).rejects.toThrow(
      'short.mp4: has 6 frames; give at least 7',
    );
    const odd = givenVideo(pattern(9, 20), 'odd.mp4');
    await expect(planExtend(model, { ...usual, video: odd })).rejects.toThrow(/^size: 20x16 does not fit/);
    const sizes = { first: givenVideo(pattern(9)), second: givenVideo(pattern(9, 24)) };
    await expect(planJoin(model, { ...usual, ...sizes })).rejects.toThrow(/^second: is 24x16 at 12/);
    const both = { video: givenVideo(pattern(9)), frames: 3, seconds: 1 };
    await expect(planLoop(model, { ...usual, ...both })).rejects.toThrow(/^seconds: 1 and 3 frames/);
  });

  it('hold neither the given video nor what was given out', async () => {
    // 40 MB of frames, of which one piece of 64 KB exists at a time.
    const piece = pattern(21, 32, 32);
    const video: GivenVideo = {
      ...givenVideo(piece),
      frames: async function* () {
        for (let i = 0; i < 640; i++) yield { ...piece, data: piece.data.slice() };
      },
    };
    const plan = await planExtend(model, { ...usual, video, frames: 4 });
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    collectGarbage();
    const before = process.memoryUsage().arrayBuffers;
    let [frames, most] = [0, 0];
    for await (const { frames: more } of edit(model, plan)) {
      frames += more;
      if (frames % (64 * 21) === 0) {
        collectGarbage();
        most = Math.max(most, process.memoryUsage().arrayBuffers - before);
      }
    }
    expect(frames).toBe(640 * 21 + 4);
    expect(most).toBeLessThan(20e6);
  });
});

describe('given frames put back', () => {
  const [a, b] = [pattern(9), reversed(pattern(20))];
  const both = { first: givenVideo(a), second: givenVideo(b) };
  const plans: Readonly<Record<string, () => Promise<EditPlan>>> = {
    'before the new ones': () => planExtend(model, { ...usual, video: both.first, frames: 16 }),
    'after them': () => planExtend(model, { ...usual, video: both.second, frames: 6, backward: true }),
    'after many': () => planExtend(model, { ...usual, video: both.second, frames: 63, backward: true }),
    'on both sides': () => planJoin(model, { ...usual, ...both, frames: 6 }),
    'on both sides of many': () => planJoin(model, { ...usual, ...both, frames: 81 }),
  };
  const bytes = (video: Video) => [...video.data];

  it.each(Object.entries(plans))('%s are encoded as what will be shown', async (_, planned) => {
    const plan = await planned();
    const { layout, context } = plan;
    const { before, after } = context;
    const noise = normal(keyFromSeed(5), layout.latentFrames * 16);
    const latents = fromFloat32('f32', [layout.latentFrames, 2, 2, 4], noise);
    const decoded = joinFrames(await collect(model.codec.decode(latents, { rate: 12 })));
    // The whole passage at once: given frames bit for bit, and new ones blended to them.
    const [first, last] = [before ? layout.from - 1 : 0, after ? layout.to + 1 : decoded.frames];
    const stream = (async function* () {
      yield sliceFrames(decoded, first, last);
    })();
    const made = joinFrames(await collect(blendSeam(stream, seamOf(plan))));
    const shown = [
      ...(before ? [sliceFrames(before, before.frames - layout.from)] : []),
      made,
      ...(after ? [sliceFrames(after, 0, decoded.frames - layout.to)] : []),
    ];
    expect(bytes(made)).not.toEqual(bytes(sliceFrames(decoded, layout.from, layout.to)));
    const whole = await model.codec.encode(joinFrames(shown));
    const found = await putBack(model.codec, latents, plan, {});
    const ranges = latentsAtSeams(layout, 4);
    for (const [i, value] of found.data.entries()) {
      const frame = Math.floor(i / 16);
      const isAtSeam = ranges.some(({ from, to }) => from <= frame && frame < to);
      if (isAtSeam) expect(value).toBeCloseTo(whole.data[i]!, 4);
      else expect(value).toBe(noise[i]);
    }
  });

  it('cost no more decoding and encoding behind many frames than the seams need', async () => {
    const cost = async (key: string) => framesToPutBack(model.codec, (await plans[key]!()).layout);
    const [few, many] = [await cost('on both sides'), await cost('on both sides of many')];
    expect(many.encoded).toBeLessThan(81);
    expect(few.encoded).toBeLessThanOrEqual(many.encoded);
    expect((await cost('before the new ones')).decoded).toBeLessThan(16 + 9);
  });
});

describe('a seam', () => {
  const grey = (level: number, frames = 1) =>
    videoFrom(new Uint8Array(frames * 12).fill(level), { width: 2, height: 2, rate: 12 });
  async function blended(pieces: readonly Video[], seam: Omit<Seam, 'frames'>): Promise<number[]> {
    const given = Number(seam.before !== undefined) + Number(seam.after !== undefined);
    const count = pieces.reduce((sum, { frames }) => sum + frames, -given);
    const stream = (async function* () {
      yield* pieces;
    })();
    return (await collect(blendSeam(stream, { ...seam, frames: count }))).flatMap(({ data, frames }) =>
      Array.from({ length: frames }, (_, i) => data[i * 12]!),
    );
  }

  it('hands what decoding lost on to the next frames, less with each', async () => {
    const found = await blended([grey(100, 5), grey(100, 5)], { before: grey(170).data });
    expect(found).toEqual([160, 150, 140, 130, 120, 110, 100, 100, 100]);
  });

  it('does the same before a given frame, and from both sides at once', async () => {
    const after = await blended([grey(100, 9), grey(100)], { after: grey(30).data });
    expect(after).toEqual([100, 100, 100, 90, 80, 70, 60, 50, 40]);
    const both = await blended([grey(100, 5)], { before: grey(164).data, after: grey(36).data });
    expect(both).toEqual([132, 100, 68]);
  });

  it('changes nothing where nothing was lost, and clamps', async () => {
    expect(await blended([grey(9, 4)], { before: grey(9).data, after: grey(9).data })).toEqual([9, 9]);
    expect(await blended([grey(0), grey(250)], { before: grey(255).data })).toEqual([255]);
    expect(await blended([grey(7, 3)], {})).toEqual([7, 7, 7]);
  });
});
