import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { prepareLatentCache, writeLatentShard } from '../../src/data/latent-cache.ts';
import { drawTimestep, shiftTimestep } from '../../src/diffusion/timesteps.ts';
import type { LatentSpec } from '../../src/models/latent-spec.ts';
import { layoutSequence, type Sequence, videoTokensOf } from '../../src/models/transformer/sequence.ts';
import { fold, keyFromSeed, normal, uniform } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount } from '../../src/tensor/shape.ts';
import type { Batch, BatchMaker, BatchPlan, BatchPlanner } from '../../src/training/batch.ts';
import { openBatchPool } from '../../src/training/batch-pool.ts';
import { drawKeptTokens, keptCount, objectTokens } from '../../src/training/object-tokens.ts';
import { readTransformerRecipe, type TransformerRecipe } from '../../src/training/recipe.ts';
import { sharedPlanner } from '../../src/training/shared-planner.ts';
import { openTransformerData } from '../../src/training/transformer-data.ts';
import {
  transformerBatchMaker,
  transformerConfigOf,
  transformerPlanner,
} from '../../src/training/transformer-task.ts';

const key = keyFromSeed(11);

describe('drawing tokens', () => {
  const grid = [7, 8, 8] as const;
  /** Which tokens show objects; about a third. */
  const objectsOf = (count: number, name: string) =>
    objectTokens(uniform(fold(key, name), count).map((u) => Math.max(0, 3 * u - 2)));
  const countOf = (objects: Uint8Array) => objects.reduce((sum, mark) => sum + mark, 0);
  const line = (count: number) => [1, 1, count] as const;

  it('keeps all that show objects and the promised number of the others, in order', () => {
    for (const count of [1, 2, 7, 64, 448])
      for (const background of [0.001, 0.3, 0.5, 1])
        for (const decoys of [0, 1, 3]) {
          const kept = { background, decoys, swept: decoys === 1 ? 0.5 : 0, until: 1 };
          const objects = objectsOf(count, `${count} ${background}`);
          const drawn = drawKeptTokens(fold(key, count), line(count), objects, kept);
          expect(drawn.length).toBe(keptCount(fold(key, count), line(count), objects, kept));
          expect([...drawn]).toEqual([...new Set(drawn)].toSorted((a, b) => a - b));
          expect(drawn.filter((token) => objects[token] === 1).length).toBe(countOf(objects));
          expect(drawn.every((token) => token >= 0 && token < count)).toBe(true);
        }
  });

  it('keeps so many of those without objects: a share, rounded, but one at least', () => {
    const count = (tokens: number, withObjects: number, background: number) =>
      keptCount(
        key,
        line(tokens),
        Uint8Array.from({ length: tokens }, (_, i) => Number(i < withObjects)),
        { background, decoys: 0, swept: 0, until: 1 },
      );
    expect(count(10, 0, 0.3)).toBe(3);
    expect(count(10, 10, 0.3)).toBe(10);
    expect(count(10, 4, 0.3)).toBe(6);
    expect(count(10, 9, 0.01)).toBe(10);
    expect(count(448, 20, 1)).toBe(448);
  });

  it('keeps every token without objects as often as any other, with decoys too', () => {
    const draws = 4000;
    for (const decoys of [0, 2]) {
      const objects = new Uint8Array(64);
      objects.fill(1, 3, 6);
      const often = new Float64Array(64);
      let others = 0;
      for (let i = 0; i < draws; i++)
        for (const token of drawKeptTokens(fold(key, i), [1, 8, 8], objects, {
          background: 0.4,
          decoys,
          swept: 0,
          until: 1,
        })) {
          often[token]!++;
          others += 1 - objects[token]!;
        }
      const expected = others / draws / 61;
      // Five deviations of a binomial share of 4000.
      const bound = 5 * Math.sqrt((expected * (1 - expected)) / draws);
      for (const [token, mark] of objects.entries()) {
        if (mark === 1) expect(often[token]).toBe(draws);
        else expect(Math.abs(often[token]! / draws - expected)).toBeLessThan(bound);
      }
    }
  });

  it('keeps decoys, which are the objects moved round the frame, mirrored, and forward or backward in time', () => {
    const objects = new Uint8Array(7 * 64);
    // Something two rows high that goes to the right and grows in the last frame.
    for (let t = 0; t < 7; t++) for (const row of [2, 3]) objects[(t * 8 + row) * 8 + t] = 1;
    objects[(6 * 8 + 4) * 8 + 6] = 1;
    const kept = { background: 1e-9, decoys: 1, swept: 0, until: 1 };
    const placed = new Set<string>();
    for (let i = 0; i < 200; i++) {
      const own = fold(key, i);
      const drawn = new Set(drawKeptTokens(own, grid, objects, kept));
      const fits = [false, true].flatMap((isBackward) =>
        [false, true].flatMap((isMirrored) =>
          Array.from({ length: 64 }, (_, offset) => {
            const moved = new Set<number>();
            for (const [token, mark] of objects.entries()) {
              if (mark === 0) continue;
              const [t, h, w] = [Math.floor(token / 64), Math.floor(token / 8) % 8, token % 8];
              const column = ((isMirrored ? 7 - w : w) + (offset % 8)) % 8;
              const row = (h + Math.floor(offset / 8)) % 8;
              moved.add(((isBackward ? 6 - t : t) * 8 + row) * 8 + column);
            }
            const both = new Set([...moved, ...[...objects.keys()].filter((token) => objects[token] === 1)]);
            // One more is kept, of those without either.
            const isKept = both.size + 1 === drawn.size && [...both].every((token) => drawn.has(token));
            return isKept ? `${isBackward} ${isMirrored} ${offset}` : undefined;
          }),
        ),
      );
      const found = fits.filter((fit) => fit !== undefined);
      // More than one where objects themselves hide what tells two apart.
      expect(found.length).toBeGreaterThan(0);
      placed.add(found[0]!);
    }
    expect(placed.size).toBeGreaterThan(100);
  });

  it('keeps of a share of the clips, in the place of decoys, all times of the places where objects are at any', () => {
    const objects = new Uint8Array(7 * 64);
    for (let t = 0; t < 7; t++) objects[(t * 8 + 2) * 8 + t] = 1;
    const kept = { background: 1e-9, decoys: 1, swept: 0.3, until: 1 };
    const draws = 600;
    let swept = 0;
    for (let i = 0; i < draws; i++) {
      const drawn = new Set(drawKeptTokens(fold(key, i), grid, objects, kept));
      const isSwept = Array.from({ length: 49 }, (_, j) => (Math.floor(j / 7) * 8 + 2) * 8 + (j % 7)).every(
        (token) => drawn.has(token),
      );
      // One more is kept of the others; a decoy has at most the seven places of its objects.
      expect(drawn.size).toBeLessThanOrEqual(isSwept ? 50 : 15);
      if (isSwept) swept++;
    }
    expect(Math.abs(swept / draws - 0.3)).toBeLessThan(5 * Math.sqrt((0.3 * 0.7) / draws));
  });
});

it('a factor on the shift moves each timestep toward noise, and 1 moves none', () => {
  for (let i = 0; i < 100; i++) {
    const plain = drawTimestep(fold(key, i), 448);
    expect(drawTimestep(fold(key, i), 448, 1)).toBe(plain);
    expect(drawTimestep(fold(key, i), 448, 3)).toBeCloseTo(shiftTimestep(plain, 3), 12);
    expect(drawTimestep(fold(key, i), 448, 0.5)).toBeLessThan(plain);
  }
});

const latent: LatentSpec = { channels: 4, stride: [4, 8, 8], mean: [0, 0, 0, 0], std: [1, 1, 1, 1] };
/** Latent frames, rows and columns of the clips. */
const shapes = [
  [2, 4, 2],
  [1, 4, 2],
  [3, 2, 4],
  [1, 2, 2],
];
let folder: string;
let path: string;
let base: TransformerRecipe;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-kept-'));
  path = join(folder, 'cache');
  const toy = await readTransformerRecipe(resolve(import.meta.dirname, '../../recipes/toy/transformer.json'));
  const variants = [{ width: 16, height: 16, frames: 5, weight: 1, clips: 8 }];
  base = {
    ...toy,
    steps: 10,
    known: 0.5,
    budget: { ...toy.budget, text: 200, segments: 24 },
    data: { ...toy.data, variants, clips: shapes.length },
  };
  const header = { autoencoder: 'a', latent, source: base.data, clips: shapes.length };
  await prepareLatentCache(path, header);
  const clips = shapes.map((shape, i) => {
    const coverage = uniform(keyFromSeed(i), elementCount(shape)).map((u) => Math.max(0, 8 * u - 7));
    return {
      latents: fromFloat32('f32', [...shape, 4], normal(keyFromSeed(9 + i), 4 * elementCount(shape))),
      captions: { short: `s${i}`, medium: `medium ${i}`, detailed: `detailed ${i}` },
      // Nothing shows in the last one.
      coverage: fromFloat32('f32', shape, i === shapes.length - 1 ? coverage.fill(0) : coverage),
    };
  });
  await writeLatentShard(path, 0, clips);
});
afterAll(() => rm(folder, { recursive: true }));

interface Task extends AsyncDisposable {
  readonly planner: BatchPlanner;
  readonly make: BatchMaker;
  readonly config: ReturnType<typeof transformerConfigOf>;
}

/** Opens planner and maker anew, as a process that begins or resumes does. */
async function open(changes: Partial<TransformerRecipe>): Promise<Task> {
  const recipe = { ...base, ...changes };
  const data = await openTransformerData(path, recipe);
  const config = transformerConfigOf(recipe, latent, 'f');
  return {
    config,
    planner: transformerPlanner(config, recipe, data.cache),
    make: transformerBatchMaker(config, recipe, data.cache),
    [Symbol.asyncDispose]: () => data[Symbol.asyncDispose](),
  };
}

/** Steps of a planner one after the other. */
function planAll(planner: BatchPlanner, from: number, to: number, start = 0) {
  let position = start;
  return Array.from({ length: to - from + 1 }, (_, i) => {
    const begin = position;
    const next = planner.plan(from + i, begin);
    position = next.position;
    return { ...next, begin };
  });
}

const tensors = ({ values }: Batch) =>
  values as unknown as Record<'clean' | 'timesteps' | 'weights', HostTensor> & {
    readonly sequence: Sequence<HostTensor>;
  };

/** What a batch says of each clip's tokens, in the order of the plan: a line of numbers for each token. */
function tokensByClip({ config, planner }: Task, { clips }: BatchPlan, batch: Batch): string[][] {
  const { clean, timesteps, weights, sequence } = tensors(batch);
  const videoTokens = clean.shape[1]!;
  const places = sequence.order.shape[1]!;
  const lines = (tensor: HostTensor, width: number, index: number) =>
    toFloat32(tensor)
      .subarray(index * width, (index + 1) * width)
      .join();
  const seen = new Map<number, number>();
  const all = clips.map(([row = 0]) => {
    const nth = seen.get(row) ?? 0;
    seen.set(row, nth + 1);
    const bounds = toFloat32(sequence.segments).subarray(row * sequence.segments.shape[1]!);
    const tokens: string[] = [];
    for (let token = row * videoTokens; token < (row + 1) * videoTokens; token++) {
      const place = toFloat32(sequence.videoOrder)[token]! - row * places;
      if (place < bounds[nth]! || place >= bounds[nth + 1]!) continue;
      const half = config.headSize / 2;
      tokens.push(
        [
          lines(clean, clean.shape[2]!, token),
          lines(timesteps, 1, token),
          lines(weights, 1, token),
          lines(sequence.places, sequence.places.shape[2]!, token),
          lines(sequence.cos, half, row * places + place),
          lines(sequence.sin, half, row * places + place),
        ].join(' | '),
      );
    }
    return tokens;
  });
  expect(planner.variants.size).toBe(1);
  return all;
}

describe.each([[[1, 1, 1]], [[1, 2, 2]]] as const)('batches of some tokens, patches of %j', (patch) => {
  const overrides = () => ({ ...base.overrides, patch });
  const kept = { background: 0.4, decoys: 1, swept: 0.4, until: 0.7 };

  it('are of the tokens that whole clips have, with the same positions, timesteps and weights', async () => {
    const settings = { overrides: overrides(), objects: 3, timestepShift: 2 };
    await using some = await open({ ...settings, kept });
    await using all = await open(settings);
    /** Tokens of whole clips, by the position that names their draws. */
    const whole = new Map<number, string[]>();
    for (const { plan } of planAll(all.planner, 1, 60)) {
      const tokens = tokensByClip(all, plan, await all.make(plan));
      for (const [i, [, , , position]] of plan.clips.entries()) whole.set(position!, tokens[i]!);
    }
    let fewer = 0;
    for (const { plan } of planAll(some.planner, 1, 7)) {
      const batch = await some.make(plan);
      const tokens = tokensByClip(some, plan, batch);
      expect(batch.facts.tokens).toBe(tokens.flat().length);
      for (const [i, [, , , position]] of plan.clips.entries()) {
        const own = tokens[i]!;
        const theirs = whole.get(position!)!;
        expect(own).toEqual(theirs.filter((token) => own.includes(token)));
        expect(own.length).toBeGreaterThan(0);
        if (own.length < theirs.length) fewer++;
      }
    }
    expect(fewer).toBeGreaterThan(10);
  });

  it('fit the rows that they were planned for, to the token', async () => {
    await using some = await open({ overrides: overrides(), kept });
    await using all = await open({ overrides: overrides() });
    const { video, rows } = base.budget;
    for (const { plan, position } of planAll(some.planner, 1, 10)) {
      const batch = await some.make(plan);
      const tokens = tokensByClip(some, plan, batch);
      const used = new Array<number>(rows).fill(0);
      plan.clips.forEach(([row], i) => {
        used[row!] = used[row!]! + tokens[i]!.length;
      });
      expect(Math.max(...used)).toBeLessThanOrEqual(video);
      // The next clip was left for the next step since it fits nowhere: had the plan counted more, it would stop early.
      const after = some.planner.plan(plan.step, position).plan.clips[0]!;
      const [next] = tokensByClip(
        some,
        { ...plan, clips: [after] },
        await some.make({ ...plan, clips: [after] }),
      );
      const isFull = used.every((count) => count + next!.length > video);
      const segments = Array.from({ length: rows }, (_, row) => plan.clips.filter(([r]) => r === row).length);
      expect(isFull || segments.some((count) => count === base.budget.segments)).toBe(true);
    }
    const clips = (task: Task, from: number, to: number) =>
      planAll(task.planner, from, to).reduce((sum, { plan }) => sum + plan.clips.length, 0);
    expect(clips(some, 1, 7)).toBeGreaterThan(clips(all, 1, 7));
    // From `until` on whole clips, so no more of them.
    expect(planAll(some.planner, 8, 10)).toEqual(planAll(all.planner, 8, 10));
  });

  it('are bit for bit those of whole clips where all is kept, and in the steps after the last that leaves any out', async () => {
    await using all = await open({ overrides: overrides(), objects: 2 });
    await using every = await open({
      overrides: overrides(),
      objects: 2,
      kept: { background: 1, decoys: 2, swept: 0.5, until: 1 },
    });
    await using some = await open({ overrides: overrides(), objects: 2, kept });
    for (const { plan, begin, position } of planAll(all.planner, 1, 10)) {
      const batch = await all.make(plan);
      expect(every.planner.plan(plan.step, begin)).toEqual({ plan, position });
      expect(await every.make(plan)).toEqual(batch);
      if (plan.step > 7) expect(await some.make(plan)).toEqual(batch);
      else expect((await some.make(plan)).facts.tokens).toBeLessThan(batch.facts.tokens!);
    }
  });

  it('are the same when training is resumed, from other threads, and shared among processes', async () => {
    const changes = { overrides: overrides(), kept };
    await using first = await open(changes);
    const plans = planAll(first.planner, 1, 10);
    const batches = await Promise.all(plans.map(({ plan }) => first.make(plan)));
    await using second = await open(changes);
    const resumed = planAll(second.planner, 6, 10, plans[5]!.begin);
    expect(resumed).toEqual(plans.slice(5));
    for (const [i, { plan }] of resumed.entries()) expect(await second.make(plan)).toEqual(batches[5 + i]);
    const recipe = { ...base, ...changes };
    await using pool = await openBatchPool(
      { kind: 'transformer', config: first.config, recipe, cache: path },
      2,
    );
    expect(await Promise.all(plans.map(({ plan }) => pool.make(plan)))).toEqual(batches);
    // Both processes of a step are at the same step of the recipe.
    const other = sharedPlanner(second.planner, { rank: 1, world: 2 });
    const { plan } = other.plan(7, 0);
    const own = first.planner.plan(7, first.planner.plan(7, 0).position);
    expect(plan.clips).toEqual(own.plan.clips);
  });
});

describe('sequences of some tokens', () => {
  const grids = [
    [2, 3, 2],
    [1, 2, 2],
  ] as const;
  const texts = [new Uint8Array(8).fill(97), new Uint8Array(4).fill(98)];
  const budget = { rows: 2, textTokens: 5, videoTokens: 20, segments: 3 };

  it('are those of whole grids where all are given', async () => {
    await using task = await open({});
    const lay = (isGiven: boolean) =>
      layoutSequence(task.config, budget, [
        grids.map((grid, i) => {
          const tokens = Int32Array.from({ length: videoTokensOf(grid) }, (_, token) => token);
          return { text: texts[i]!, grid, ...(isGiven && { tokens }) };
        }),
      ]);
    expect(lay(true)).toEqual(lay(false));
  });

  it('refuse tokens that the grid has not', async () => {
    await using task = await open({});
    const tokens = Int32Array.of(0, 12);
    expect(() =>
      layoutSequence(task.config, budget, [[{ text: texts[0]!, grid: grids[0], tokens }]]),
    ).toThrow('sequence row 0: token 12 is not of a grid of 2x3x2');
  });
});

describe('conditions of sequences', () => {
  const budget = { rows: 2, textTokens: 5, videoTokens: 8, segments: 2 };
  const laid = async (timesteps: readonly (readonly number[])[]) => {
    await using task = await open({});
    const rows = timesteps.map((values) => [
      {
        text: new Uint8Array(8).fill(97),
        grid: [1, 1, values.length] as const,
        timesteps: Float32Array.from(values),
      },
      { text: new Uint8Array(4).fill(98), grid: [1, 1, 2] as const },
    ]);
    return layoutSequence(task.config, budget, rows);
  };

  it('are one for each sample and timestep; text has 0, padding none', async () => {
    const { conditions, timesteps, textMeans } = await laid([[0.5, 0, 0.5]]);
    const [first, second] = [toFloat32(conditions).slice(0, 13), toFloat32(conditions).slice(13)];
    expect([...first]).toEqual([0, 0, 1, 0, 1, 2, 2, 2, -1, -1, -1, -1, -1]);
    expect(new Set(second)).toEqual(new Set([-1]));
    expect([...toFloat32(timesteps)]).toEqual([0, 0.5, 0, 0, 0, 0, 0, 0]);
    const means = toFloat32(textMeans);
    expect([0, 1, 2, 3].map((row) => [...means.slice(5 * row, 5 * row + 5)])).toEqual([
      [0.5, 0.5, 0, 0, 0],
      [0.5, 0.5, 0, 0, 0],
      [0, 0, 1, 0, 0],
      [0, 0, 0, 0, 0],
    ]);
  });

  it('refuse more than the budget has', async () => {
    await expect(laid([[0.5], [0.1, 0.2, 0.3]])).rejects.toThrow(
      'sequence row 1: 5 conditions; the budget is 4',
    );
  });

  it('refuse timesteps that are not one for each token', async () => {
    await using task = await open({});
    const sample = { text: new Uint8Array(4), grid: [1, 1, 3] as const, timesteps: new Float32Array(2) };
    expect(() => layoutSequence(task.config, budget, [[sample]])).toThrow(
      'sequence row 0: 2 timesteps of 3 video tokens',
    );
  });
});
