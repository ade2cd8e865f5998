import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  edit,
  estimateGeneration,
  generate,
  givenFile,
  loadModel,
  MediaReader,
  planGeneration,
  planLoop,
  readVideo,
  writeVideo,
} from '../../src/index.ts';
import { writeTinyModel } from './tiny-model.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-library-'));
  await writeTinyModel(folder);
});
afterAll(() => rm(folder, { recursive: true }));

describe('the library', () => {
  it('loads a model, plans, makes a video, and edits it', async () => {
    await using model = await loadModel(folder, { device: 'cpu', threads: 1 });
    const request = { prompt: 'a red ball', size: { width: 24, height: 16 }, seconds: 1, steps: 2, seed: 5 };
    const plan = planGeneration(model, request);
    expect(plan.extent).toEqual({ width: 24, height: 16, frames: 12, rate: 12 });
    const { videoTokens, evaluations, memory, seconds } = estimateGeneration(model, plan);
    expect([videoTokens, evaluations]).toEqual([4 * 2 * 3, 4]);
    expect(memory).toBeGreaterThan(1e8);
    expect(seconds).toBeGreaterThan(0);

    const path = join(folder, 'ball.mp4');
    expect((await writeVideo(generate(model, request), path)).frames).toBe(12);

    await using reader = new MediaReader();
    const video = await givenFile(reader, path, {}, model.stride);
    const loop = await planLoop(model, { ...request, video, seconds: 0.5 });
    const endless = join(folder, 'endless.mp4');
    await writeVideo(edit(model, loop), endless);
    expect((await readVideo(endless)).frames).toBe(18);
  });

  it('chooses a device by itself, and says which model is missing', async () => {
    await using model = await loadModel(folder);
    expect(model.executor.name).toMatch(/^(onnx cpu|nvidia)/);
    await expect(loadModel('no-such-model')).rejects.toThrow(/^model .*weights\/no-such-model: there is no /);
  });
});
