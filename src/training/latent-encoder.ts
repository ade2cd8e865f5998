import {
  type DeviceBuffer,
  disposeAll,
  type Executable,
  type Executor,
  inputsOf,
  uploadTree,
} from '../executors/executor.ts';
import { type AutoencoderSpec, autoencoderSpec, encode } from '../models/autoencoder/autoencoder.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import type { Parameters } from '../nn/parameters.ts';
import { type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { at, elementCount } from '../tensor/shape.ts';
import { trace } from '../tensor/trace.ts';
import { leaves } from '../tensor/tree.ts';

/** Encodes clips of few sizes in batches, for the latent cache and its statistics. Dispose it to free its memory. */
export class LatentEncoder implements Disposable {
  readonly #executor: Executor;
  readonly #config: AutoencoderConfig;
  readonly #parameters: readonly DeviceBuffer[];
  readonly #compiled = new Map<string, Executable>();

  /** @param parameters host tensors in the form of `autoencoderSpec(config)`. */
  constructor(executor: Executor, config: AutoencoderConfig, parameters: object) {
    this.#executor = executor;
    this.#config = config;
    this.#parameters = leaves(uploadTree(executor, parameters)) as DeviceBuffer[];
  }

  /**
   * Means of the posterior of each clip, not normalised, f32 [T', H', W', C].
   * @param video [B, T, H, W, 3], -1 to 1.
   */
  async encode(video: HostTensor<'f32'>): Promise<HostTensor<'f32'>[]> {
    const executable = await this.#executableFor(video.shape);
    using input = this.#executor.upload(video);
    const [output] = await this.#executor.run(executable, [...this.#parameters, input]);
    if (output === undefined) throw new Error('the encoder gave nothing');
    using latents = output;
    const values = toFloat32(await this.#executor.download(latents));
    const shape = latents.shape.slice(1);
    const size = elementCount(shape);
    return Array.from({ length: at(video.shape, 0) }, (_, i) => ({
      dtype: 'f32',
      shape,
      data: values.slice(i * size, (i + 1) * size),
    }));
  }

  async #executableFor(shape: readonly number[]): Promise<Executable> {
    const key = shape.join('x');
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const { graph, parameters } = trace(
      `encode ${key}`,
      (p, video) => ({ mean: encode(p as Parameters<AutoencoderSpec>, this.#config, video).mean }),
      autoencoderSpec(this.#config),
      { shape, dtype: 'f32' },
    );
    const executable = await this.#executor.compile(graph, { fixed: inputsOf(parameters, 0) });
    this.#compiled.set(key, executable);
    return executable;
  }

  [Symbol.dispose](): void {
    disposeAll([...this.#parameters]);
    for (const executable of this.#compiled.values()) executable[Symbol.dispose]();
  }
}
