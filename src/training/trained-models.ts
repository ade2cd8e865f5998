import type { Executor } from '../executors/executor.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import type { TransformerConfig } from '../models/transformer/config.ts';
import { writeModel } from '../storage/model-file.ts';
import { openBatchPool } from './batch-pool.ts';
import { measureLatents } from './latent-statistics.ts';
import { type Origin, provenanceOf } from './provenance.ts';
import type { AutoencoderRecipe } from './recipe.ts';
import type { HostState } from './step.ts';

/**
 * Writes a trained autoencoder, the running average of its weights, with the statistics of its latents.
 * @param threads that render the clips over which latents are measured.
 * @throws UserError when the file cannot be written.
 */
export async function writeTrainedAutoencoder(
  path: string,
  executor: Executor,
  config: AutoencoderConfig,
  { average }: HostState,
  origin: Origin & { readonly recipe: AutoencoderRecipe },
  threads: number,
): Promise<void> {
  await using pool = await openBatchPool({ kind: 'worlds', data: origin.recipe.data }, threads);
  const measured = await measureLatents(executor, config, average, origin.recipe, pool);
  const provenance = await provenanceOf(origin, executor.name);
  await writeModel(path, { kind: 'autoencoder', config: measured, parameters: average, provenance });
}

/**
 * Writes a trained transformer, the running average of its weights.
 * @param made.device what it was trained on.
 * @param made.autoencoder digest of the autoencoder whose latents it makes.
 * @throws UserError when the file cannot be written.
 */
export async function writeTrainedTransformer(
  path: string,
  config: TransformerConfig,
  { average }: HostState,
  origin: Origin,
  made: { readonly device: string; readonly autoencoder: string },
): Promise<void> {
  const provenance = { ...(await provenanceOf(origin, made.device)), autoencoder: made.autoencoder };
  await writeModel(path, { kind: 'transformer', config, parameters: average, provenance });
}
