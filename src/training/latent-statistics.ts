import type { Executor } from '../executors/executor.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import { at } from '../tensor/shape.ts';
import type { BatchPool } from './batch-pool.ts';
import { encodeWorlds } from './encode-worlds.ts';
import { LatentEncoder } from './latent-encoder.ts';
import type { AutoencoderRecipe } from './recipe.ts';

/** Below this a channel carries nothing, and dividing by its deviation would blow noise up. */
const smallestDeviation = 1e-4;

/**
 * The configuration with mean and standard deviation of each latent channel, measured over clips of the recipe.
 * @param parameters host tensors in the form of the autoencoder's specification.
 * @param pool of the job `worlds` with the recipe's data.
 */
export async function measureLatents(
  executor: Executor,
  config: AutoencoderConfig,
  parameters: object,
  { data, statisticsClips }: AutoencoderRecipe,
  pool: BatchPool,
): Promise<AutoencoderConfig> {
  using encoder = new LatentEncoder(executor, config, parameters);
  const sums = new ChannelSums(config.latentChannels);
  for await (const { latents } of encodeWorlds(encoder, pool, data, 0, statisticsClips))
    sums.add(latents.data);
  return { ...config, latentMean: sums.mean, latentStd: sums.deviation };
}

/** Mean and deviation of each channel of values whose last axis is the channel, in float64. */
export class ChannelSums {
  readonly #sum: Float64Array;
  readonly #square: Float64Array;
  #count = 0;

  /** @param channels size of the last axis. */
  constructor(channels: number) {
    this.#sum = new Float64Array(channels);
    this.#square = new Float64Array(channels);
  }

  /** Adds values, a whole number of positions. */
  add(values: Float32Array): void {
    const channels = this.#sum.length;
    for (let i = 0; i < values.length; i++) {
      const value = values[i] ?? 0;
      const channel = i % channels;
      this.#sum[channel] = (this.#sum[channel] ?? 0) + value;
      this.#square[channel] = (this.#square[channel] ?? 0) + value * value;
    }
    this.#count += values.length / channels;
  }

  /** Mean of each channel. */
  get mean(): number[] {
    return [...this.#sum].map((sum) => sum / this.#count);
  }

  /** Standard deviation of each channel, at least 1e-4. */
  get deviation(): number[] {
    const mean = this.mean;
    return [...this.#square].map((square, channel) => {
      const variance = square / this.#count - at(mean, channel) ** 2;
      return Math.max(smallestDeviation, Math.sqrt(Math.max(0, variance)));
    });
  }
}
