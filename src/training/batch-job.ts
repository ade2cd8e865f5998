import { LatentCache } from '../data/latent-cache.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import type { LatentSpec } from '../models/latent-spec.ts';
import type { TransformerConfig } from '../models/transformer/config.ts';
import { autoencoderBatchMaker } from './autoencoder-task.ts';
import type { BatchMaker } from './batch.ts';
import type { AutoencoderRecipe, TransformerRecipe, WorldsData } from './recipe.ts';
import { transformerBatchMaker } from './transformer-task.ts';
import { worldBatchMaker } from './world-batches.ts';

/** What a thread has to know to make batches: plain data. */
export type BatchJob =
  | {
      readonly kind: 'autoencoder';
      readonly config: AutoencoderConfig;
      readonly recipe: AutoencoderRecipe;
    }
  | {
      readonly kind: 'transformer';
      readonly config: TransformerConfig;
      readonly recipe: TransformerRecipe;
      /** Folder of the latent cache. */
      readonly cache: string;
    }
  | {
      readonly kind: 'worlds';
      readonly data: WorldsData;
      /** Latents whose coverage by objects is wanted too. */
      readonly latent?: LatentSpec;
    };

/** A maker and the files that it reads. */
export interface OpenBatchMaker extends AsyncDisposable {
  readonly make: BatchMaker;
}

/** Opens what a job's batches are made of. */
export async function openBatchMaker(job: BatchJob): Promise<OpenBatchMaker> {
  switch (job.kind) {
    case 'autoencoder':
      return withoutFiles(autoencoderBatchMaker(job.config, job.recipe));
    case 'transformer': {
      const cache = await LatentCache.open(job.cache);
      const make = transformerBatchMaker(job.config, job.recipe, cache);
      return { make, [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose]() };
    }
    case 'worlds':
      return withoutFiles(worldBatchMaker(job.data, job.latent));
  }
}

function withoutFiles(make: BatchMaker): OpenBatchMaker {
  return { make, [Symbol.asyncDispose]: () => Promise.resolve() };
}
