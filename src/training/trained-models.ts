import type { Executor } from '../executors/executor.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import { writeModel } from '../storage/model-file.ts';
import { measureLatents } from './latent-statistics.ts';
import { type Origin, provenanceOf } from './provenance.ts';
import type { AutoencoderRecipe } from './recipe.ts';
import type { HostState } from './step.ts';

/**
 * Writes a trained autoencoder, the running average of its weights, with the statistics of its latents.
 * @throws UserError when the file cannot be written.
 */
export async function writeTrainedAutoencoder(
  path: string,
  executor: Executor,
  config: AutoencoderConfig,
  { average }: HostState,
  origin: Origin & { readonly recipe: AutoencoderRecipe },
): Promise<void> {
  const measured = await measureLatents(executor, config, average, origin.recipe);
  const provenance = await provenanceOf(origin, executor.name);
  await writeModel(path, { kind: 'autoencoder', config: measured, parameters: average, provenance });
}
