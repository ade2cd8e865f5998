import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LatentCache, prepareLatentCache, writeLatentShard } from '../../src/data/latent-cache.ts';
import { WorldRenderer } from '../../src/data/worlds/render.ts';
import type { Scene } from '../../src/data/worlds/scene.ts';
import { makeWorld, worldKey } from '../../src/data/worlds/world.ts';
import type { LatentSpec } from '../../src/models/latent-spec.ts';
import { fold, keyFromSeed, normal, RandomStream, uniform } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount } from '../../src/tensor/shape.ts';
import {
  readTransformerRecipe,
  type TransformerRecipe,
  type Variant,
  type WorldsData,
} from '../../src/training/recipe.ts';
import { openTransformerData } from '../../src/training/transformer-data.ts';
import {
  transformerBatchMaker,
  transformerConfigOf,
  transformerPlanner,
} from '../../src/training/transformer-task.ts';
import { latentCoverage, worldClip } from '../../src/training/world-clips.ts';
import { frameAt } from '../../src/video/frames.ts';

const latent: LatentSpec = { channels: 4, stride: [4, 8, 8], mean: [0, 0, 0, 0], std: [1, 1, 1, 1] };
const toy = resolve(import.meta.dirname, '../../recipes/toy');
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-coverage-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('coverage of latent positions by objects', () => {
  const data: WorldsData = {
    kind: 'worlds',
    seed: 3,
    split: 'train',
    rate: 12,
    clips: 16,
    variants: [],
    choices: { sizes: ['large'], weathers: ['clear'] },
  };

  /** The scene of a clip and the moments of its frames, in seconds. */
  function worldOf(index: number, { frames }: Variant) {
    const key = worldKey(data.seed, index);
    const seconds = frames === 1 ? 2 : frames / data.rate;
    const { scene } = makeWorld(key, { seconds, split: data.split, choices: data.choices! });
    const moment = new RandomStream(fold(key, 'moment')).uniform(0, seconds);
    return {
      scene,
      times: frames === 1 ? [moment] : Array.from({ length: frames }, (_, i) => i / data.rate),
    };
  }

  /** Share of pixels of each latent position that are not those of the scene without its objects. */
  function shareThatDiffers(scene: Scene, { width, height }: Variant, time: number): Float32Array {
    const full = new WorldRenderer(scene, width, height).frame(time);
    const empty = new WorldRenderer({ ...scene, objects: [] }, width, height).frame(time);
    const shares = new Float32Array((width / 8) * (height / 8));
    for (let pixel = 0; pixel < width * height; pixel++) {
      const differs = [0, 1, 2].some((c) => full[3 * pixel + c] !== empty[3 * pixel + c]);
      const [y, x] = [Math.floor(pixel / width), pixel % width];
      const position = Math.floor(y / 8) * (width / 8) + Math.floor(x / 8);
      shares[position]! += differs ? 1 / 64 : 0;
    }
    return shares;
  }

  /**
   * Positions that are wholly covered, and those whose coverage is not what pixels say, `late` seconds after the moment
   * of each latent frame.
   */
  function compare(variant: Variant, late: number): { readonly full: number; readonly wrong: number } {
    let [full, wrong] = [0, 0];
    for (let index = 0; index < data.clips; index++) {
      const clip = worldClip(data, index, variant);
      const { scene, times } = worldOf(index, variant);
      const { shape, data: covered } = latentCoverage(clip, latent);
      expect(shape).toEqual([1 + (variant.frames - 1) / 4, variant.height / 8, variant.width / 8]);
      for (let k = 0; k < shape[0]!; k++) {
        const time = times[4 * k]!;
        const shown = new WorldRenderer(scene, variant.width, variant.height).frame(time);
        expect(frameAt(clip.video, 4 * k)).toEqual(shown);
        const differing = shareThatDiffers(scene, variant, time + late);
        for (const [position, seen] of differing.entries()) {
          const share = covered[k * differing.length + position]!;
          if (share > 0.99) full++;
          // Shadows and reflections differ too, so more may differ than is covered, but not less. A pixel may have the
          // background's colour by chance, and cover of less than half a level does not show.
          if (share > 0.99 ? Math.abs(seen - share) > 0.02 : share > seen + 0.02) wrong++;
        }
      }
    }
    return { full, wrong };
  }

  it.each([
    ['frames 0, 4, 8 and so on of a video', { width: 96, height: 64, frames: 13, weight: 1, clips: 1 }, 100],
    ['the moment that a still shows', { width: 64, height: 112, frames: 1, weight: 1, clips: 1 }, 20],
  ])('is where pixels differ from those of the scene without objects, in %s', (_name, variant, least) => {
    const { full, wrong } = compare(variant, 0);
    expect(full).toBeGreaterThan(least);
    expect(wrong).toBe(0);
    // Objects move, so another moment does not agree: the comparison can tell.
    expect(compare(variant, 0.25).wrong).toBeGreaterThan(least / 5);
  });
});

describe('tokens that show objects', () => {
  const objects = 3;
  /** Latent frames, rows and columns of the clips. */
  const shapes = [
    [2, 4, 2],
    [1, 4, 2],
    [3, 2, 4],
  ];
  const coverages = shapes.map((shape, i): HostTensor<'f32'> => {
    // Multiples of 1/64, exact in f16; half of them 0.
    const draws = uniform(keyFromSeed(i), elementCount(shape));
    const shares = draws.map((u) => Math.max(0, Math.round(64 * (2 * u - 1)) / 64));
    return fromFloat32('f32', shape, shares);
  });

  async function writeCache(name: string, recipe: TransformerRecipe, isCovered: (clip: number) => boolean) {
    const path = join(folder, name);
    await prepareLatentCache(path, {
      autoencoder: 'a',
      latent,
      source: recipe.data,
      clips: recipe.data.clips,
    });
    const clips = shapes.map((shape, i) => ({
      latents: fromFloat32('f32', [...shape, 4], normal(keyFromSeed(9 + i), 4 * coverages[i]!.data.length)),
      captions: { short: 's', medium: 'm', detailed: 'd' },
      coverage: isCovered(i) ? coverages[i] : undefined,
    }));
    await writeLatentShard(path, 0, clips);
    return path;
  }

  async function recipeOf(changes: Partial<TransformerRecipe>): Promise<TransformerRecipe> {
    const recipe = await readTransformerRecipe(join(toy, 'transformer.json'));
    const variants = [{ width: 16, height: 16, frames: 5, weight: 1, clips: 8 }];
    return { ...recipe, data: { ...recipe.data, variants, clips: shapes.length }, ...changes };
  }

  it('are known to a cache that was told', async () => {
    const recipe = await recipeOf({});
    await using cache = await LatentCache.open(await writeCache('told', recipe, () => true));
    expect(cache.hasCoverage).toBe(true);
    for (const [i, coverage] of coverages.entries()) {
      const { shape, data } = await cache.coverage(i);
      expect(shape).toEqual(coverage.shape);
      expect(data).toEqual(coverage.data);
    }
  });

  it('are not known to caches of before, which serve recipes that do not ask, and are refused to others', async () => {
    const plain = await recipeOf({});
    const kept = { background: 0.5, decoys: 0, swept: 0, until: 1 };
    // As when a cache begun before is finished now.
    const path = await writeCache('partly', plain, (clip) => clip === 0);
    await using data = await openTransformerData(path, plain);
    expect(data.cache.hasCoverage).toBe(false);
    for (const [name, asking] of [
      ['objects', { ...plain, objects }],
      ['kept', { ...plain, kept }],
    ] as const) {
      const error = await openTransformerData(path, asking).catch((caught: Error) => caught);
      expect((error as Error).message).toBe(
        `${path}: does not say where objects are, which the recipe's ${name} needs; remove it and make it anew`,
      );
    }
  });

  it.each([[[1, 2, 2]], [[1, 1, 1]]] as const)(
    'count up to 1 + objects in patches of %j, others 1, known ones 0',
    async (patch) => {
      const base = await recipeOf({ objects, known: 0.8 });
      const recipe = { ...base, overrides: { ...base.overrides, patch } };
      const path = await writeCache(`patch ${patch.join('')}`, recipe, () => true);
      await using data = await openTransformerData(path, recipe);
      const config = transformerConfigOf(recipe, latent, 'f');
      const planner = transformerPlanner(config, recipe, data.cache);
      const make = transformerBatchMaker(config, recipe, data.cache);
      const seen = { known: 0, plain: 0, part: 0, full: 0 };
      for (let step = 1, position = 0; step <= 30; step++) {
        const next = planner.plan(step, position);
        position = next.position;
        const { values } = await make(next.plan);
        const { weights, timesteps } = values as Record<'weights' | 'timesteps', HostTensor<'f32'>>;
        // What fills rows up counts nothing.
        const expected = new Float32Array(weights.data.length);
        const ends = Array.from({ length: recipe.budget.rows }, (_, row) => row * recipe.budget.video);
        for (const [row, clip] of next.plan.clips as [number, number][]) {
          for (const share of sharesOf(coverages[clip]!, patch)) {
            const token = ends[row]!++;
            const isKnown = timesteps.data[token] === 0;
            expected[token] = isKnown ? 0 : 1 + objects * Math.min(1, share / 0.25);
            seen[isKnown ? 'known' : share === 0 ? 'plain' : share < 0.25 ? 'part' : 'full']++;
          }
        }
        expect(weights.data).toEqual(expected);
      }
      for (const count of Object.values(seen)) expect(count).toBeGreaterThan(10);
    },
  );

  /** Mean coverage of each patch of [1, ph, pw] positions, in the order of tokens. */
  function sharesOf({ shape, data }: HostTensor<'f32'>, [, ph, pw]: readonly [1, number, number]): number[] {
    const [T = 0, H = 0, W = 0] = shape;
    const shares: number[] = [];
    for (let t = 0; t < T; t++)
      for (let h = 0; h < H; h += ph)
        for (let w = 0; w < W; w += pw) {
          let sum = 0;
          for (let y = h; y < h + ph; y++) for (let x = w; x < w + pw; x++) sum += data[(t * H + y) * W + x]!;
          shares.push(sum / (ph * pw));
        }
    return shares;
  }
});
