import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import { autoencoderBatchMaker } from './autoencoder-task.ts';
import type { BatchMaker } from './batch.ts';
import type { AutoencoderRecipe } from './recipe.ts';

/** What a thread has to know to make batches: plain data. */
export type BatchJob = {
  readonly kind: 'autoencoder';
  readonly config: AutoencoderConfig;
  readonly recipe: AutoencoderRecipe;
};

/** Opens what a job's batches are made of. */
export async function openBatchMaker(job: BatchJob): Promise<BatchMaker> {
  return autoencoderBatchMaker(job.config, job.recipe);
}
