import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openExecutor } from '../../src/app.ts';
import {
  clipsPerShard,
  LatentCache,
  prepareLatentCache,
  writeLatentShard,
} from '../../src/data/latent-cache.ts';
import type { Executor } from '../../src/executors/executor.ts';
import { autoencoderSpec } from '../../src/models/autoencoder/autoencoder.ts';
import { initialize } from '../../src/nn/parameters.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { writeModel } from '../../src/storage/model-file.ts';
import { f32ToF16 } from '../../src/tensor/float16.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { leaves } from '../../src/tensor/tree.ts';
import { autoencoderConfigOf } from '../../src/training/autoencoder-task.ts';
import type { BatchMaker, BatchPlan } from '../../src/training/batch.ts';
import type { BatchJob } from '../../src/training/batch-job.ts';
import { openBatchPool } from '../../src/training/batch-pool.ts';
import { fillLatentCache } from '../../src/training/fill-cache.ts';
import { ChannelSums } from '../../src/training/latent-statistics.ts';
import { packFirstFit } from '../../src/training/packing.ts';
import { readAutoencoderRecipe, readTransformerRecipe } from '../../src/training/recipe.ts';
import { openTransformerData } from '../../src/training/transformer-data.ts';
import {
  transformerBatchMaker,
  transformerConfigOf,
  transformerPlanner,
} from '../../src/training/transformer-task.ts';

const toy = resolve(import.meta.dirname, '../../recipes/toy');
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-cache-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('latent cache', () => {
  const clip = (index: number) => {
    const shape = [1 + (index % 3), 2, 3, 4];
    const latents = fromFloat32('f32', shape, normal(keyFromSeed(index), 24 * shape[0]!));
    const captions = { short: `s${index}`, medium: `m${index}`, detailed: `d${index} é` };
    return { latents, captions };
  };
  const header = { autoencoder: 'a', latent: { channels: 4 }, source: {}, clips: clipsPerShard + 3 };

  it('gives clips back by position, knows what is missing, and refuses another header', async () => {
    const path = join(folder, 'plain');
    expect(await prepareLatentCache(path, header)).toEqual([0, 1]);
    const clips = Array.from({ length: header.clips }, (_, i) => clip(i));
    await writeLatentShard(path, 1, clips.slice(clipsPerShard));
    expect(await prepareLatentCache(path, header)).toEqual([0]);
    await expect(LatentCache.open(path)).rejects.toThrow('the latent cache is incomplete');
    await writeLatentShard(path, 0, clips.slice(0, clipsPerShard));
    await using cache = await LatentCache.open(path);
    for (const index of [clipsPerShard + 2, 0, 7, clipsPerShard]) {
      const { latents, captions } = clips[index]!;
      expect(cache.captions(index)).toEqual(captions);
      expect(cache.shape(index)).toEqual(latents.shape);
      expect((await cache.read(index)).data).toEqual(f32ToF16(toFloat32(latents)));
    }
    await expect(prepareLatentCache(path, { ...header, autoencoder: 'b' })).rejects.toThrow(
      `${path}: holds latents of another autoencoder`,
    );
  });
});

describe('batches of the toy transformer', () => {
  let executor: Executor;
  beforeAll(async () => {
    executor = await openExecutor('cpu');
  });
  afterAll(() => executor[Symbol.asyncDispose]());

  it('are the same from any number of threads, and hold each clip once an epoch', async () => {
    const file = join(toy, 'autoencoder.json');
    const config = autoencoderConfigOf(await readAutoencoderRecipe(file), file);
    const model = join(folder, 'autoencoder.safetensors');
    const parameters = initialize(autoencoderSpec(config), keyFromSeed(1));
    await writeModel(model, { kind: 'autoencoder', config, parameters });
    const recipe = await readTransformerRecipe(join(toy, 'transformer.json'));
    const cache = join(folder, 'latents');
    expect(await fillLatentCache(executor, cache, recipe.data, model, { threads: 0 })).toBe(true);
    await using data = await openTransformerData(cache, recipe);
    expect(data.cache.hasCoverage).toBe(true);
    for (let clip = 0; clip < recipe.data.clips; clip++)
      expect((await data.cache.coverage(clip)).shape).toEqual(data.cache.shape(clip).slice(0, 3));
    const transformer = transformerConfigOf(recipe, data.latent, 'toy');
    const planner = transformerPlanner(transformer, recipe, data.cache);
    const plans = [];
    let position = 0;
    for (let step = 1; position < 2 * recipe.data.clips; step++) {
      const next = planner.plan(step, position);
      plans.push(next.plan);
      position = next.position;
    }
    const used = plans.flatMap(({ clips }) => clips.map(([, clip]) => clip!));
    const epoch = used.slice(0, recipe.data.clips).toSorted((a, b) => a - b);
    expect(epoch).toEqual(Array.from({ length: recipe.data.clips }, (_, i) => i));

    const job = { kind: 'transformer', config: transformer, recipe, cache } as const;
    await using pool = await openBatchPool(job, 2);
    const here = transformerBatchMaker(transformer, recipe, data.cache);
    const some = plans.slice(0, 4);
    const [theirs, ours] = await Promise.all([Promise.all(some.map(pool.make)), Promise.all(some.map(here))]);
    expect(theirs).toEqual(ours);
    expect(ours[0]!.facts.fill).toBeGreaterThan(0.3);
    await expectSharedMemory(job, plans.slice(0, 12), here);
  });
});

/** Batches in memory that is pinned are the same, use the same memory over and over, and give it back. */
async function expectSharedMemory(job: BatchJob, plans: readonly BatchPlan[], here: BatchMaker) {
  const pinned = new Set<SharedArrayBuffer>();
  let count = 0;
  const pin = (memory: SharedArrayBuffer) => {
    pinned.add(memory);
    count++;
    return { [Symbol.dispose]: () => void pinned.delete(memory) };
  };
  {
    await using pool = await openBatchPool(job, 2, pin);
    for (let i = 0; i < plans.length; i += 2) {
      const pair = plans.slice(i, i + 2);
      const batches = await Promise.all(pair.map(pool.make));
      expect(batches).toEqual(await Promise.all(pair.map(here)));
      const memories = batches.flatMap(({ values }) =>
        (leaves(values as object) as HostTensor[]).map(({ data }) => data.buffer as SharedArrayBuffer),
      );
      expect(new Set(memories).size).toBe(2);
      expect(memories.every((memory) => pinned.has(memory))).toBe(true);
      for (const batch of batches) pool.recycle(batch);
    }
    expect(count).toBe(2);
  }
  expect(pinned.size).toBe(0);
}

it('first fit passes no clip over and keeps to the budget', () => {
  const budget = { rows: 2, videoTokens: 10, textTokens: 4, segments: 3 };
  const sizes = [6, 5, 4, 5, 3, 9];
  const rows = packFirstFit(budget, (i) => ({ text: 1, video: sizes[i]! }));
  expect(rows.map(({ row }) => row)).toEqual([0, 1, 0, 1]);
  expect(() => packFirstFit(budget, () => ({ text: 5, video: 1 }))).toThrow('does not fit a row of 10 and 4');
});

it('measures mean and deviation of channels', () => {
  const sums = new ChannelSums(2);
  sums.add(Float32Array.of(1, 10, 3, 10));
  sums.add(Float32Array.of(5, 10));
  expect(sums.mean).toEqual([3, 10]);
  expect(sums.deviation[0]).toBeCloseTo(Math.sqrt(8 / 3), 12);
  expect(sums.deviation[1]).toBe(1e-4);
});
