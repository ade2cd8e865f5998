import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import { type AutoencoderSpec, autoencoderSpec } from '../models/autoencoder/autoencoder.ts';
import { type AutoencoderConfig, checkAutoencoderConfig } from '../models/autoencoder/config.ts';
import { checkTransformerConfig, type TransformerConfig } from '../models/transformer/config.ts';
import { type TransformerSpec, transformerSpec } from '../models/transformer/transformer.ts';
import { fileDigest } from '../storage/file-digest.ts';
import { fitParameters, readModel, type StoredModel } from '../storage/model-file.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import type { TreeOf } from '../tensor/tree.ts';

/** Weights and configuration of one network. */
export interface Weights<Config, Spec> {
  readonly config: Config;
  readonly parameters: TreeOf<Spec, HostTensor>;
}

/** The two networks that together make videos. */
export interface VideoModelWeights {
  /** What the model is called in messages: its folder. */
  readonly name: string;
  readonly autoencoder: Weights<AutoencoderConfig, AutoencoderSpec>;
  readonly transformer: Weights<TransformerConfig, TransformerSpec>;
}

/**
 * Reads `autoencoder.safetensors` and `transformer.safetensors` of a folder.
 *
 * They must belong together: a transformer speaks the latents of the one autoencoder it was trained on. Its file names
 * the digest of that file (`autoencoder` of its provenance); a copy in another precision names the original's digest
 * as `convertedFrom` in its own provenance.
 * @throws UserError when a file is missing, damaged, of another kind, or they do not belong together.
 */
export async function readVideoModel(folder: string): Promise<VideoModelWeights> {
  const paths = { autoencoder: pathOf(folder, 'autoencoder'), transformer: pathOf(folder, 'transformer') };
  // One after the other, so that the first that lacks is named.
  for (const path of Object.values(paths)) await checkThere(folder, path);
  const [autoencoder, transformer, digest] = await Promise.all([
    readModel(paths.autoencoder, 'autoencoder'),
    readModel(paths.transformer, 'transformer'),
    fileDigest(paths.autoencoder),
  ]);
  checkTogether(autoencoder, transformer, digest);
  const config = checkTransformerConfig(transformer.config);
  const { parameters, path } = transformer;
  return {
    name: folder,
    autoencoder: autoencoderOf(autoencoder),
    transformer: { config, parameters: fitParameters(transformerSpec(config), parameters, path) },
  };
}

/**
 * Reads an autoencoder alone.
 * @throws UserError when the file is missing, damaged or of another kind.
 */
export async function readAutoencoder(path: string): Promise<VideoModelWeights['autoencoder']> {
  return autoencoderOf(await readModel(path, 'autoencoder'));
}

function autoencoderOf({ config, parameters, path }: StoredModel): VideoModelWeights['autoencoder'] {
  const checked = checkAutoencoderConfig(config);
  return { config: checked, parameters: fitParameters(autoencoderSpec(checked), parameters, path) };
}

function pathOf(folder: string, kind: 'autoencoder' | 'transformer'): string {
  return join(folder, `${kind}.safetensors`);
}

async function checkThere(folder: string, path: string): Promise<void> {
  const isThere = (await stat(path).catch(() => undefined))?.isFile() === true;
  if (isThere) return;
  throw new UserError(
    `model ${folder}: there is no ${path}; train one with zoetrope train, or name another model`,
  );
}

function checkTogether(autoencoder: StoredModel, transformer: StoredModel, digest: string): void {
  const wanted = transformer.provenance.autoencoder;
  const is = [digest, autoencoder.provenance.convertedFrom];
  if (wanted === undefined || is.includes(wanted)) return;
  throw new UserError(
    `${transformer.path}: was trained on the latents of another autoencoder (${wanted.slice(0, 12)}…) than ` +
      `${autoencoder.path} (${digest.slice(0, 12)}…); put the two of one training together`,
  );
}
