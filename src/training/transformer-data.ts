import { LatentCache } from '../data/latent-cache.ts';
import { UserError } from '../errors.ts';
import type { LatentSpec } from '../models/latent-spec.ts';
import type { TransformerRecipe } from './recipe.ts';

/** A latent cache that fits a recipe. */
export interface TransformerData extends AsyncDisposable {
  readonly cache: LatentCache;
  readonly latent: LatentSpec;
}

/**
 * Opens the latents a recipe trains on.
 * @throws UserError when the cache is incomplete, or of other clips than the recipe's.
 */
export async function openTransformerData(
  folder: string,
  { data }: TransformerRecipe,
): Promise<TransformerData> {
  const cache = await LatentCache.open(folder);
  if (JSON.stringify(cache.header.source) !== JSON.stringify(data)) {
    await cache[Symbol.asyncDispose]();
    throw new UserError(
      `${folder}: holds latents of other clips than the recipe's data; make them with its recipe`,
    );
  }
  return {
    cache,
    latent: cache.header.latent as LatentSpec,
    [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose](),
  };
}
