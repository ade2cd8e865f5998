import { LatentCache } from '../data/latent-cache.ts';
import { UserError } from '../errors.ts';
import type { LatentSpec } from '../models/latent-spec.ts';
import type { TransformerRecipe } from './recipe.ts';

/** A latent cache that fits a recipe. */
export interface TransformerData extends AsyncDisposable {
  /** Knows which positions are covered where the recipe leaves tokens out: see `LatentCache.covered`. */
  readonly cache: LatentCache;
  readonly latent: LatentSpec;
}

/**
 * Opens the latents a recipe trains on.
 * @throws UserError when the cache is incomplete, of other clips than the recipe's, or lacks what the recipe needs.
 */
export async function openTransformerData(
  folder: string,
  { data, objects, kept }: TransformerRecipe,
): Promise<TransformerData> {
  const cache = await LatentCache.open(folder);
  const refuse = async (problem: string): Promise<never> => {
    await cache[Symbol.asyncDispose]();
    throw new UserError(`${folder}: ${problem}`);
  };
  if (JSON.stringify(cache.header.source) !== JSON.stringify(data))
    await refuse("holds latents of other clips than the recipe's data; make them with its recipe");
  if ((objects > 0 || kept !== undefined) && !cache.hasCoverage)
    await refuse(
      `does not say where objects are, which the recipe's ${objects > 0 ? 'objects' : 'kept'} needs; remove it and make it anew`,
    );
  if (kept !== undefined) await cache.loadCovered();
  return {
    cache,
    latent: cache.header.latent as LatentSpec,
    [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose](),
  };
}
