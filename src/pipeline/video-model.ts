import type { Executor } from '../executors/executor.ts';
import { receptiveField } from '../models/autoencoder/autoencoder.ts';
import { type AutoencoderConfig, latentStride } from '../models/autoencoder/config.ts';
import type { LatentSpec } from '../models/latent-spec.ts';
import type { TransformerConfig } from '../models/transformer/config.ts';
import { parameterCount } from '../nn/parameters.ts';
import type { Size } from '../video/frames.ts';
import { LatentCodec } from './latent-codec.ts';
import type { VideoModelWeights } from './model-files.ts';
import { VelocityField } from './velocity-field.ts';

/**
 * A model ready to make videos: its two networks on an executor. Weights are uploaded when the model is made, graphs
 * compiled as sizes are first asked for. Dispose it to free both, and the executor with them.
 */
export class VideoModel implements AsyncDisposable {
  /** What it is called in messages. */
  readonly name: string;
  /** What it runs on. */
  readonly executor: Executor;
  /** Latents to pixels and back. */
  readonly codec: LatentCodec;
  /** The velocity of latents under a prompt. */
  readonly field: VelocityField;
  /** Sizes of the transformer. */
  readonly config: TransformerConfig;

  /** Bytes of all weights in float32. */
  readonly weightBytes: number;

  /** @param executor becomes the model's: it is disposed with it. */
  constructor(executor: Executor, { name, autoencoder, transformer }: VideoModelWeights) {
    this.name = name;
    this.executor = executor;
    this.config = transformer.config;
    this.weightBytes = 4 * parameterCount([autoencoder.parameters, transformer.parameters]);
    this.field = new VelocityField(executor, transformer.config, transformer.parameters);
    const tiles = { size: tileSize(autoencoder.config) };
    this.codec = new LatentCodec(executor, autoencoder.config, autoencoder.parameters, { tiles });
  }

  /** What the latents are like. */
  get latent(): LatentSpec {
    return this.codec.spec;
  }

  /** Pixels of one video token: width and height of videos are multiples. */
  get stride(): Size {
    const [, rows, columns] = this.latent.stride;
    const [, high, wide] = this.config.patch;
    return { height: rows * high, width: columns * wide };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.codec[Symbol.asyncDispose]();
    this.field[Symbol.dispose]();
    await this.executor[Symbol.asyncDispose]();
  }
}

/** Frames larger than this are encoded and decoded in tiles, in pixels: memory then grows no more with the frame. */
const usualTile = 256;

/** A tile's size for which the overlap, twice what the networks see, is a third at most. */
function tileSize(config: AutoencoderConfig): number {
  const { encoder, decoder } = receptiveField(config);
  const [, stride] = latentStride;
  const reach = Math.ceil(Math.max(encoder.space, decoder.space) / stride) * stride;
  return Math.max(usualTile, 6 * reach);
}
