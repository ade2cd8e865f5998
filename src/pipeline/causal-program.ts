import {
  BufferScope,
  type DeviceBuffer,
  type Executable,
  type Executor,
  inputsOf,
} from '../executors/executor.ts';
import type { BorderCache } from '../models/autoencoder/borders.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { at, type TensorType } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { trace } from '../tensor/trace.ts';
import { leaves, type TreeOf } from '../tensor/tree.ts';

/** A network that goes through a video stretch by stretch, as graph code. */
export type CausalNetwork<Specs> = (
  p: TreeOf<Specs, Tensor>,
  x: Tensor,
  cache?: BorderCache,
) => { readonly result: Tensor; readonly cache: BorderCache };

/** What a run gives: values for the host, and what the next run needs, which the caller owns until then. */
export interface CausalStep {
  readonly result: HostTensor;
  readonly cache: readonly DeviceBuffer[];
}

/** A causal network compiled twice: for the start of a video, and for every stretch after it. */
export class CausalProgram implements Disposable {
  readonly #executor: Executor;
  readonly #weights: readonly DeviceBuffer[];
  readonly #first: Executable;
  readonly #next: Executable;

  private constructor(
    executor: Executor,
    weights: readonly DeviceBuffer[],
    first: Executable,
    next: Executable,
  ) {
    this.#executor = executor;
    this.#weights = weights;
    this.#first = first;
    this.#next = next;
  }

  /**
   * Compiles `network` for stretches of the two types. The weights stay the caller's, and as they are.
   * @throws what {@link Executor.compile} throws.
   */
  static async compile<Specs extends object>(
    executor: Executor,
    network: CausalNetwork<Specs>,
    weights: TreeOf<Specs, DeviceBuffer> & object,
    specs: Specs,
    types: { readonly first: TensorType; readonly next: TensorType },
  ): Promise<CausalProgram> {
    const build = (p: unknown, x: Tensor, cache?: BorderCache) => {
      // `trace` gives tensors in place of the specifications, which is what TreeOf<Specs, Tensor> says.
      const step = network(p as TreeOf<Specs, Tensor>, x, cache);
      return { result: step.result, cache: [...step.cache] };
    };
    const first = trace('first stretch', (p, x) => build(p, x), specs, types.first);
    const borders: readonly TensorType[] = first.result.cache;
    const next = trace('next stretch', (p, x, cache) => build(p, x, cache), specs, types.next, borders);
    const fixed = inputsOf(first.parameters, 0);
    const compiled = await executor.compile(first.graph, { fixed });
    const donate = inputsOf(next.parameters, 2);
    return new CausalProgram(
      executor,
      leaves(weights) as readonly DeviceBuffer[],
      compiled,
      await executor.compile(next.graph, { donate, fixed }),
    );
  }

  /**
   * One stretch: the start of a video without a cache, else what follows the stretch that gave the cache, which is
   * disposed.
   */
  async run(x: HostTensor, cache?: readonly DeviceBuffer[]): Promise<CausalStep> {
    using scope = new BufferScope();
    const executable = cache === undefined ? this.#first : this.#next;
    const input = scope.own(this.#executor.upload(x));
    const outputs = await this.#executor.run(executable, [...this.#weights, input, ...(cache ?? [])]);
    scope.own([...outputs]);
    const result = await this.#executor.download(at(outputs, 0));
    return { result, cache: scope.release(outputs.slice(1)) };
  }

  [Symbol.dispose](): void {
    this.#first[Symbol.dispose]();
    this.#next[Symbol.dispose]();
  }
}
