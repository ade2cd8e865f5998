import { resolve } from 'node:path';
import {
  type ClipToCache,
  clipsPerShard,
  type LatentCacheHeader,
  prepareLatentCache,
  writeLatentShard,
} from '../data/latent-cache.ts';
import type { Executor } from '../executors/executor.ts';
import { autoencoderSpec } from '../models/autoencoder/autoencoder.ts';
import { checkAutoencoderConfig, latentSpec } from '../models/autoencoder/config.ts';
import type { LatentSpec } from '../models/latent-spec.ts';
import { fileDigest } from '../storage/file-digest.ts';
import { fitParameters, readModel } from '../storage/model-file.ts';
import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { openBatchPool } from './batch-pool.ts';
import { encodeWorlds } from './encode-worlds.ts';
import { LatentEncoder } from './latent-encoder.ts';
import type { WorldsData } from './recipe.ts';

/** How a cache is filled. */
export interface FillOptions {
  /** Threads that render. */
  readonly threads: number;
  /** Aborted: stop after the shard under way; the same call goes on from there. */
  readonly signal?: AbortSignal;
  /** Told how many clips are there. */
  readonly onClips?: (done: number) => void;
}

/** What a cache of a recipe's clips is to hold. @throws UserError when the autoencoder cannot be read. */
export async function cacheHeader(data: WorldsData, autoencoder: string): Promise<LatentCacheHeader> {
  const config = checkAutoencoderConfig((await readModel(autoencoder, 'autoencoder')).config);
  return {
    autoencoder: await fileDigest(autoencoder),
    latent: latentSpec(config),
    source: data,
    clips: data.clips,
  };
}

/**
 * Encodes a recipe's clips into a latent cache, those that are missing; memory holds one shard.
 * @param autoencoder path of the model file.
 * @returns whether all are there; false when stopped by the signal.
 * @throws UserError when the autoencoder does not fit, or the folder holds another cache or cannot be written.
 */
export async function fillLatentCache(
  executor: Executor,
  folder: string,
  data: WorldsData,
  autoencoder: string,
  { threads, signal, onClips }: FillOptions,
): Promise<boolean> {
  const header = await cacheHeader(data, autoencoder);
  const missing = await prepareLatentCache(folder, header, resolve(autoencoder));
  if (missing.length === 0) return true;
  const model = await readModel(autoencoder, 'autoencoder');
  const config = checkAutoencoderConfig(model.config);
  const latent = latentSpec(config);
  const parameters = fitParameters(autoencoderSpec(config), model.parameters, autoencoder);
  using encoder = new LatentEncoder(executor, config, parameters);
  await using pool = await openBatchPool({ kind: 'worlds', data, latent }, threads);
  let done = data.clips - missing.reduce((sum, shard) => sum + shardSize(data, shard), 0);
  for (const shard of missing) {
    if (signal?.aborted === true) return false;
    const clips: { index: number; clip: ClipToCache }[] = [];
    const first = shard * clipsPerShard;
    for await (const { index, latents, captions, coverage } of encodeWorlds(
      encoder,
      pool,
      data,
      first,
      shardSize(data, shard),
    )) {
      clips.push({ index, clip: { latents: normalised(latents, latent), captions, coverage } });
      onClips?.(++done);
    }
    clips.sort((a, b) => a.index - b.index);
    await writeLatentShard(
      folder,
      shard,
      clips.map(({ clip }) => clip),
    );
  }
  return true;
}

function shardSize({ clips }: WorldsData, shard: number): number {
  return Math.min(clipsPerShard, clips - shard * clipsPerShard);
}

/** (latents - mean) / std of each channel. */
function normalised(
  { shape, data }: HostTensor<'f32'>,
  { channels, mean, std }: LatentSpec,
): HostTensor<'f32'> {
  return fromFloat32(
    'f32',
    shape,
    data.map((value, i) => (value - (mean[i % channels] ?? 0)) / (std[i % channels] ?? 1)),
  );
}
