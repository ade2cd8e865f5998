import { afterAll, describe, expect, it } from 'vitest';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { estimateGeneration } from '../../src/pipeline/estimate.ts';
import { type GenerateRequest, generate, planGeneration } from '../../src/pipeline/generate.ts';
import type { StageProgress } from '../../src/pipeline/progress.ts';
import { RequestError } from '../../src/pipeline/request.ts';
import { VideoModel } from '../../src/pipeline/video-model.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount } from '../../src/tensor/shape.ts';
import { mapTree } from '../../src/tensor/tree.ts';
import { frameAt, joinFrames, sliceFrames, type Video } from '../../src/video/frames.ts';
import { noWebGpu } from '../executors/webgpu.ts';
import { collect, pattern, tinyModel, tinyWeights } from './tiny-model.ts';

const model = tinyModel(openOnnxExecutor());
afterAll(() => model[Symbol.asyncDispose]());

const usual = {
  prompt: 'a red ball',
  seed: 7,
  steps: 3,
  size: { width: 16, height: 16 },
  frames: 9,
} as const;
const made = async (request: Partial<GenerateRequest> = {}): Promise<Video> =>
  joinFrames(await collect(generate(model, { ...usual, ...request })));
const isSame = (a: Video, b: Video) => a.data.every((byte, i) => byte === b.data[i]);

async function expectAlike(other: VideoModel, request: Partial<GenerateRequest>): Promise<void> {
  const a = await made(request);
  const b = joinFrames(await collect(generate(other, { ...usual, ...request })));
  const error = a.data.reduce((sum, byte, i) => sum + (byte - b.data[i]!) ** 2, 0) / a.data.length;
  expect(10 * Math.log10(255 ** 2 / Math.max(error, 1e-9))).toBeGreaterThan(40);
}

/** The tiny transformer with one weight that is no number. */
function ruined(): typeof tinyWeights.transformer.parameters {
  return mapTree(tinyWeights.transformer.parameters, (leaf, path) => {
    if (path !== 'last.out.bias') return leaf as HostTensor;
    return fromFloat32('f32', leaf.shape, new Float32Array(elementCount(leaf.shape)).fill(Number.NaN));
  }) as typeof tinyWeights.transformer.parameters;
}

describe('generate', () => {
  it('gives the frames asked for as a stream: size, number, rate, timestamps', async () => {
    const pieces = await collect(
      generate(model, { ...usual, frames: 7, rate: 24, size: { width: 24, height: 16 } }),
    );
    expect(pieces.map(({ frames }) => frames)).toEqual([1, 4, 2]);
    const video = joinFrames(pieces);
    expect([video.width, video.height, video.rate]).toEqual([24, 16, 24]);
    expect([...video.timestamps]).toEqual(Array.from({ length: 7 }, (_, i) => i / 24));
    expect(new Set(video.data).size).toBeGreaterThan(50);
  });

  it('gives the same bits for the same seed with one thread, with two, and after other work', async () => {
    const video = await made();
    for (const threads of [1, 2]) {
      await using other = tinyModel(openOnnxExecutor({ threads }));
      // Something else before: nothing of an earlier request may stay.
      await collect(generate(other, { ...usual, prompt: 'before', frames: 1 }));
      expect(joinFrames(await collect(generate(other, usual))).data).toEqual(video.data);
    }
  });

  it('gives the same video on another device, to 40 dB at least', async () => {
    await using other = tinyModel(new ReferenceExecutor());
    await expectAlike(other, { frames: 5 });
  });

  it('gives the same picture on WebGPU, to 40 dB at least (skips where there is none)', async (context) => {
    const reason = await noWebGpu();
    if (reason !== undefined) return context.skip(`no WebGPU here: ${reason}`);
    await using other = tinyModel(openOnnxExecutor({ device: 'webgpu' }));
    await expectAlike(other, { frames: 1, steps: 2 });
  });

  it('says when the model gives no numbers', async () => {
    const broken = { ...tinyWeights, transformer: { ...tinyWeights.transformer, parameters: ruined() } };
    await using other = new VideoModel(openOnnxExecutor(), broken);
    await expect(collect(generate(other, usual))).rejects.toThrow(/no numbers; use less guidance than 4/);
  });

  it.each<[string, Partial<GenerateRequest>]>([
    ['seed', { seed: 8 }],
    ['prompt', { prompt: 'a blue cube' }],
    ['guidance', { guidance: 2 }],
    ['guidance interval', { guidanceInterval: [0.5, 1] }],
    ['negative prompt', { negative: 'green' }],
    ['steps', { steps: 4 }],
    ['sampler', { sampler: 'heun' }],
  ])('does something else for another %s', async (_, request) => {
    expect(isSame(await made(request), await made())).toBe(false);
  });

  it('does not ask the negative prompt without guidance', async () => {
    expect((await made({ guidance: 1, negative: 'green' })).data).toEqual((await made({ guidance: 1 })).data);
  });

  it('draws a seed when none is given, and tells it', async () => {
    const seeds = [1, 2, 3].map(() => planGeneration(model, { prompt: '' }).settings.seed);
    expect(new Set(seeds).size).toBe(3);
  });

  it('rounds frames up to whole latent frames, not down', () => {
    const plan = planGeneration(model, { ...usual, frames: 6 });
    expect(plan.extent.frames).toBe(6);
    expect(estimateGeneration(model, plan).videoTokens).toBe(3 * 2 * 2);
    expect(planGeneration(model, { ...usual, frames: undefined as never, seconds: 0.5 }).extent.frames).toBe(
      6,
    );
  });

  it('shows the first image as it is, and goes on from it', async () => {
    const image = pattern(1);
    const video = await made({ image });
    expect(video.frames).toBe(9);
    expect(frameAt(video, 0)).toEqual(image.data);
    expect([...video.timestamps]).toEqual(Array.from({ length: 9 }, (_, i) => i / 12));
    const other = await made({ image: { ...image, data: image.data.map((byte) => 255 - byte) } });
    expect(isSame(sliceFrames(video, 5), sliceFrames(other, 5))).toBe(false);
  });

  it('changes a video the more the strength: not at all at 0, without a trace of it at 1', async () => {
    const video = pattern(9);
    const kept = joinFrames(
      await collect(model.codec.decode(await model.codec.encode(video), { rate: 12, frames: 9 })),
    );
    expect((await made({ video, strength: 0 })).data).toEqual(kept.data);
    expect((await made({ video, strength: 1 })).data).toEqual((await made()).data);
    const distance = (a: Video) => a.data.reduce((sum, byte, i) => sum + Math.abs(byte - kept.data[i]!), 0);
    const [little, much] = [await made({ video, strength: 0.1 }), await made({ video, strength: 0.9 })];
    expect(distance(little)).toBeGreaterThan(0);
    expect(distance(much)).toBeGreaterThan(distance(little));
  });

  it('refines a preview of half the size, and gives it', async () => {
    const previews: Video[] = [];
    const stages = new Set<string>();
    const hooks = {
      onPreview: async (video: Video) => void previews.push(video),
      onProgress: ({ stage }: StageProgress) => void stages.add(stage),
    };
    const video = joinFrames(await collect(generate(model, { ...usual, preview: true }, hooks)));
    expect(previews.map(({ width, height, frames }) => [width, height, frames])).toEqual([[8, 8, 9]]);
    expect([video.width, video.height, video.frames]).toEqual([16, 16, 9]);
    expect(stages).toEqual(new Set(['previewing', 'encoding', 'sampling', 'decoding']));
    expect(isSame(video, await made())).toBe(false);
    const plan = planGeneration(model, { ...usual, preview: true });
    const [whole, part] = [estimateGeneration(model, plan), estimateGeneration(model, { ...plan, from: 1 })];
    expect(whole.evaluations).toBeLessThan(part.evaluations);
  });

  it.each([
    [96, 64, 48, 32],
    [64, 112, 48, 80],
    [128, 128, 64, 64],
    [32, 16, undefined, undefined],
    [1920, 1088, 960, 544],
  ])('makes the preview of %dx%d at the same aspect or nearly so', (width, height, wide, high) => {
    const stride = { width: 16, height: 16 };
    const plan = () => planGeneration({ stride }, { ...usual, size: { width, height }, preview: true });
    if (wide === undefined) expect(plan).toThrow('cannot be any smaller');
    else expect(plan().preview).toMatchObject({ width: wide, height: high });
  });

  it('tells each step and frame, and stops at once when told to', async () => {
    const told: string[] = [];
    const onProgress = ({ stage, done, total }: StageProgress) => void told.push(`${stage} ${done}/${total}`);
    await collect(generate(model, usual, { onProgress }));
    expect(told).toEqual([
      ...['sampling 0/3', 'sampling 1/3', 'sampling 2/3', 'sampling 3/3'],
      ...['decoding 0/9', 'decoding 1/9', 'decoding 5/9', 'decoding 9/9'],
    ]);
    for (const last of ['sampling 2/3', 'decoding 5/9']) {
      const controller = new AbortController();
      const seen: string[] = [];
      const hooks = {
        signal: controller.signal,
        onProgress: ({ stage, done, total }: StageProgress) => {
          seen.push(`${stage} ${done}/${total}`);
          if (seen.at(-1) === last) controller.abort(new Error('enough'));
        },
      };
      await expect(collect(generate(model, usual, hooks))).rejects.toThrow('enough');
      expect(told.indexOf(seen.at(-1)!) - told.indexOf(last)).toBeLessThanOrEqual(1);
    }
    // The model is as good as before.
    expect((await made()).frames).toBe(9);
  });

  it.each<[Partial<GenerateRequest>, RegExp]>([
    [{ size: { width: 20, height: 16 } }, /^size: 20x16 does not fit; .* multiple of 8 .* such as 24x16$/],
    [{ size: { width: 0, height: 16 } }, /^size: 0x16 .* such as 8x16$/],
    [{ size: { width: 16, height: Number.NaN } }, /^size: 16xNaN/],
    [{ frames: 0 }, /^frames: 0; use a whole number from 1/],
    [{ frames: 2.5 }, /^frames: 2.5/],
    [{ seconds: 1 }, /^seconds: 1 and 9 frames; give one/],
    [{ frames: undefined as never, seconds: -1 }, /^seconds: -1; use more than 0/],
    [{ rate: 0 }, /^rate: 0/],
    [{ seed: -1 }, /^seed: -1/],
    [{ seed: 0.5 }, /^seed: 0.5/],
    [{ steps: 0 }, /^steps: 0/],
    [{ guidance: Number.NaN }, /^guidance: NaN/],
    [{ guidanceInterval: [0.5, 0.2] }, /^guidanceInterval: 0.5 to 0.2/],
    [{ sampler: 'rk4' as never }, /^sampler: 'rk4' is unknown; use one of euler, heun, multistep$/],
    [{ prompt: 'é'.repeat(641) }, /^prompt: has 1282 bytes of UTF-8; the model reads at most 1280$/],
    [{ negative: 'x'.repeat(1281) }, /^negative: has 1281 bytes/],
    [{ strength: 0.5 }, /^strength: .* give the video/],
    [{ video: pattern(9), strength: 2 }, /^strength: 2/],
    [{ video: pattern(8) }, /^frames: 9 are asked for, the video has 8/],
    [{ video: pattern(9, 24) }, /^video: is 24x16 pixels, 16x16 are asked for/],
    [{ image: pattern(1, 8, 8) }, /^image: is 8x8 pixels/],
    [{ image: pattern(2) }, /^image: has 2 frames; give one/],
    [{ image: pattern(1), frames: 1 }, /^image: would be the only frame/],
    [{ image: pattern(1), video: pattern(9) }, /^image: and a video cannot be given together/],
    [{ preview: true, size: { width: 8, height: 16 } }, /^preview: of 8x16 pixels cannot be any smaller/],
  ])('refuses %j before anything is computed', async (request, message) => {
    const stages: string[] = [];
    const running = collect(
      generate(model, { ...usual, ...request }, { onProgress: ({ stage }) => void stages.push(stage) }),
    );
    await expect(running).rejects.toThrow(RequestError);
    await expect(running).rejects.toThrow(message);
    expect(stages).toEqual([]);
  });
});
