import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { autoencoderConfigOf } from '../../src/training/autoencoder-task.ts';
import {
  autoencoderRecipeSchema,
  publishedSchema,
  readAutoencoderRecipe,
  readTransformerRecipe,
  recipeDigest,
  transformerRecipeSchema,
} from '../../src/training/recipe.ts';
import { transformerConfigOf } from '../../src/training/transformer-task.ts';

const recipes = resolve(import.meta.dirname, '../../recipes');

describe('recipes in the repository', () => {
  it.each(['micro', 'micro-gpu', 'toy'])('%s can be read and their models made', async (name) => {
    const first = join(recipes, name, 'autoencoder.json');
    const config = autoencoderConfigOf(await readAutoencoderRecipe(first), first);
    const second = join(recipes, name, 'transformer.json');
    const latent = { channels: config.latentChannels, stride: [4, 8, 8], mean: [], std: [] } as const;
    const made = transformerConfigOf(await readTransformerRecipe(second), latent, second);
    expect(made.channels).toBe(config.latentChannels);
  });

  it('whose patches do not divide a clip are refused in a line', async () => {
    const file = join(recipes, 'micro', 'transformer.json');
    const recipe = await readTransformerRecipe(file);
    const latent = { channels: 32, stride: [4, 8, 8], mean: [], std: [] } as const;
    const other = { ...recipe, overrides: { ...recipe.overrides, patch: [1, 3, 4] } };
    expect(() => transformerConfigOf(other, latent, 'f.json')).toThrow(
      new UserError(
        'f.json: patches of 1x3x4 do not divide a clip of 64x64x25, 7x8x8 latent positions; set overrides.patch',
      ),
    );
  });

  it.each([
    ['autoencoder', publishedSchema(autoencoderRecipeSchema as never)],
    ['transformer', publishedSchema(transformerRecipeSchema as never)],
  ])('%s.schema.json is what is checked; else run node scripts/recipe-schemas.ts', async (name, schema) => {
    const published = JSON.parse(await readFile(join(recipes, `${name}.schema.json`), 'utf8'));
    expect(published).toEqual(JSON.parse(JSON.stringify(schema)));
  });
});

describe('mistakes', () => {
  let folder: string;
  let toy: Record<string, unknown>;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'zoetrope-recipe-'));
    toy = JSON.parse(await readFile(join(recipes, 'toy', 'autoencoder.json'), 'utf8'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  const data = (changes: object) => ({ data: { ...(toy.data as object), ...changes } });
  it.each<[string, () => object, string]>([
    ['an unknown entry', () => ({ stepz: 1 }), 'stepz 1: is not known here; use model, preset'],
    ['a wrong type', () => ({ steps: 'many' }), 'steps "many": must be a whole number of at least 1'],
    ['a value out of range', () => ({ ema: 1.5 }), 'ema 1.5: must be a number of at least 0 and at most 1'],
    ['another model', () => ({ model: 'transformer' }), 'model "transformer": must be autoencoder'],
    ['a list that is empty', () => data({ variants: [] }), 'data.variants []: must be a list of at least 1'],
    [
      'an odd size, deep inside',
      () => data({ variants: [{ width: 20, height: 16, frames: 5 }] }),
      'data.variants.0.width 20: must be a multiple of 8',
    ],
    [
      'a number of frames that does not fit',
      () => data({ variants: [{ width: 16, height: 16, frames: 24 }] }),
      'data.variants.0.frames 24: must be 1 + 4k',
    ],
    [
      'a word that worlds do not know',
      () => data({ choices: { shapes: ['blob'] } }),
      'data.choices.shapes.0 "blob": must be one of',
    ],
    ['an entry that is missing', () => ({ optimizer: {} }), 'optimizer.rate is missing; give it a value'],
  ])('%s is one line with file and path', async (_name, changes, message) => {
    const file = join(folder, 'recipe.json');
    await writeFile(file, JSON.stringify({ ...toy, ...changes() }));
    const error = await readAutoencoderRecipe(file).catch((caught: Error) => caught);
    expect((error as Error).message).toContain(`${file}: ${message}`);
    expect((error as Error).message).not.toContain('\n');
  });

  it.each<[string, object, string]>([
    [
      'none of the background',
      { kept: { background: 0, decoys: 0, swept: 0, until: 1 } },
      'kept.background 0: must be a number of above 0',
    ],
    [
      'more than all',
      { kept: { background: 1.5, decoys: 0, swept: 0, until: 1 } },
      'kept.background 1.5: must be a number of above 0',
    ],
    [
      'until after the end',
      { kept: { background: 0.3, decoys: 0, swept: 0, until: 8 } },
      'kept.until 8: must be a number of at least 0',
    ],
    ['no end', { kept: { background: 0.3 } }, 'kept.until is missing; give it a value'],
    ['no shift', { timestepShift: 0 }, 'timestepShift 0: must be a number of above 0'],
  ])('kept tokens and timesteps, %s: one line', async (_name, changes, message) => {
    const file = join(folder, 'transformer.json');
    const plain = JSON.parse(await readFile(join(recipes, 'toy', 'transformer.json'), 'utf8'));
    await writeFile(file, JSON.stringify({ ...plain, ...changes }));
    const error = await readTransformerRecipe(file).catch((caught: Error) => caught);
    expect((error as Error).message).toContain(`${file}: ${message}`);
    expect((error as Error).message).not.toContain('\n');
  });

  it('names presets and overrides that there are not', async () => {
    const recipe = await readAutoencoderRecipe(join(recipes, 'toy', 'autoencoder.json'));
    expect(() => autoencoderConfigOf({ ...recipe, preset: 'giant' }, 'f')).toThrow(
      'f: preset "giant": must be one of micro',
    );
    expect(() => autoencoderConfigOf({ ...recipe, overrides: { depth: 3 } }, 'f')).toThrow(
      'f: overrides.depth is not known here; use latentChannels',
    );
  });

  it('resumes under other intervals, but not under another learning rate', async () => {
    const recipe = await readAutoencoderRecipe(join(recipes, 'toy', 'autoencoder.json'));
    const often = { ...recipe, intervals: { checkpoint: 1, sample: 1, log: 1 } };
    const faster = { ...recipe, optimizer: { ...recipe.optimizer, rate: 1 } };
    expect(recipeDigest(often)).toBe(recipeDigest(recipe));
    expect(recipeDigest(faster)).not.toBe(recipeDigest(recipe));
  });

  it('keeps the digests of recipes that were there before an option, and tells its values apart', async () => {
    const first = await readAutoencoderRecipe(join(recipes, 'toy', 'autoencoder.json'));
    const second = await readTransformerRecipe(join(recipes, 'toy', 'transformer.json'));
    // As computed by the code of before `optimizer.method` and `objects`. Options that are added belong in `recipe.ts`'s
    // `added`; if a recipe here has changed itself, its digest is to.
    expect(recipeDigest(first)).toBe('124ebde0814a3f54');
    expect(recipeDigest(second)).toBe('cb7d9a325a554c9f');
    const weighted = { ...second, objects: 2 };
    const moved = { ...second, optimizer: { ...second.optimizer, method: 'muon' } } as const;
    const kept = { background: 0.3, decoys: 0, swept: 0, until: 0.8 };
    const digests = [
      second,
      weighted,
      { ...second, objects: 3 },
      moved,
      { ...moved, objects: 2 },
      { ...second, kept },
      { ...second, kept: { ...kept, until: 0.7 } },
      { ...second, timestepShift: 2 },
    ].map(recipeDigest);
    expect(new Set(digests).size).toBe(digests.length);
  });
});
