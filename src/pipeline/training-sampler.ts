import type { DeviceBuffer, Executor } from '../executors/executor.ts';
import type { AutoencoderSpec } from '../models/autoencoder/autoencoder.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import { latentShapeOf } from '../models/latent-spec.ts';
import type { TransformerConfig } from '../models/transformer/config.ts';
import type { TransformerSpec } from '../models/transformer/transformer.ts';
import type { TreeOf } from '../tensor/tree.ts';
import { joinFrames, type Video } from '../video/frames.ts';
import { LatentCodec } from './latent-codec.ts';
import type { Weights } from './model-files.ts';
import { type Extent, type SamplingRequest, samplingSettings } from './request.ts';
import { sampleLatents } from './sampling.ts';
import { VelocityField } from './velocity-field.ts';

/**
 * Makes videos with weights that a training holds on its executor: they are read where they are. Only the autoencoder's
 * weights are uploaded, when the first video is made; graphs are compiled then, once. Dispose to free both.
 */
export class TrainingSampler implements AsyncDisposable {
  readonly #executor: Executor;
  readonly #config: TransformerConfig;
  readonly #autoencoder: Weights<AutoencoderConfig, AutoencoderSpec>;
  #opened: { readonly codec: LatentCodec; readonly field: VelocityField } | undefined;
  #weights: object | undefined;

  constructor(
    executor: Executor,
    config: TransformerConfig,
    autoencoder: Weights<AutoencoderConfig, AutoencoderSpec>,
  ) {
    this.#executor = executor;
    this.#config = config;
    this.#autoencoder = autoencoder;
  }

  /**
   * Makes a video.
   * @param weights buffers in the form of `transformerSpec(config)`.
   * @throws UserError when the model gives values that are no numbers; the signal's reason when it is aborted.
   */
  async video(
    weights: object,
    request: SamplingRequest,
    extent: Extent,
    signal?: AbortSignal,
  ): Promise<Video> {
    this.#weights = weights;
    const { codec, field } = this.#open();
    const { rate, frames } = extent;
    const passage = { shape: latentShapeOf(codec.spec, frames, extent) };
    const latents = await sampleLatents(field, this.#config, passage, samplingSettings(request), { signal });
    const pieces: Video[] = [];
    for await (const piece of codec.decode(latents, { rate, frames })) pieces.push(piece);
    return joinFrames(pieces);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.codec[Symbol.asyncDispose]();
    this.#opened?.field[Symbol.dispose]();
  }

  #open() {
    const { config, parameters } = this.#autoencoder;
    this.#opened ??= {
      codec: new LatentCodec(this.#executor, config, parameters),
      field: new VelocityField(
        this.#executor,
        this.#config,
        () => this.#weights as TreeOf<TransformerSpec, DeviceBuffer>,
      ),
    };
    return this.#opened;
  }
}
