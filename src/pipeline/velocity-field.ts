import {
  BufferScope,
  type DeviceBuffer,
  disposeAll,
  type Executable,
  type Executor,
  uploadTree,
} from '../executors/executor.ts';
import { bytesPerToken, captionBytes } from '../models/text/caption-bytes.ts';
import { encodeText } from '../models/text/text-encoder.ts';
import { patchChannels, type TimeHeightWidth, type TransformerConfig } from '../models/transformer/config.ts';
import {
  layoutSequence,
  type Sequence,
  type SequenceBudget,
  sequenceTypes,
  videoTokensOf,
} from '../models/transformer/sequence.ts';
import { sampledVelocity, type TransformerSpec, transformerSpec } from '../models/transformer/transformer.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { at, type TensorType } from '../tensor/shape.ts';
import type { Graph } from '../tensor/tensor.ts';
import { trace } from '../tensor/trace.ts';
import { leaves, type TreeOf } from '../tensor/tree.ts';
import { costOf, type GraphCost } from './graph-cost.ts';

/** Most bytes of UTF-8 that a prompt may have: as many as captions have in training. */
export const maxPromptBytes = 1280;

/**
 * Prompts are encoded in blocks of so many bytes. ONNX Runtime's matrix products with fewer rows than columns sum in an
 * order that depends on the number of threads: with at least as many rows, bytes and tokens, as `micro` has columns,
 * a prompt gives the same bits with one thread and with four.
 */
const textBlock = 1024;

/** Compiled graphs that are kept for later; the one used longest ago goes first. */
const keptGraphs = 8;

/** The velocity of one video under one prompt: patches [V, P] and timesteps [V] to [V, P]. Dispose to free its text. */
export interface PromptVelocity extends Disposable {
  (patches: Float32Array, timesteps: Float32Array): Promise<Float32Array>;
}

/**
 * The transformer on an executor: weights uploaded once, each shape compiled once. A prompt is encoded once and its
 * sequence laid out once; a step uploads patches and timesteps alone. Dispose to free everything.
 */
export class VelocityField implements Disposable {
  readonly #executor: Executor;
  readonly #config: TransformerConfig;
  readonly #own: readonly DeviceBuffer[];
  readonly #weights: () => readonly DeviceBuffer[];
  readonly #compiled = new Map<string, Compiled>();

  /**
   * @param parameters weights of `transformerSpec(config)`, such as a model file holds; or a function that gives those that
   * are on the executor now, as in a training, which stay their owner's.
   */
  constructor(
    executor: Executor,
    config: TransformerConfig,
    parameters: TreeOf<TransformerSpec, HostTensor> | (() => TreeOf<TransformerSpec, DeviceBuffer>),
  ) {
    this.#executor = executor;
    this.#config = config;
    if (typeof parameters === 'function') {
      this.#own = [];
      this.#weights = () => leaves(parameters()) as DeviceBuffer[];
    } else {
      const own = leaves(uploadTree(executor, parameters)) as DeviceBuffer[];
      this.#own = own;
      this.#weights = () => own;
    }
  }

  /**
   * Encodes a prompt for videos of a grid of patches, and compiles what their steps need.
   * @param prompt at most {@link maxPromptBytes} bytes; what is longer is cut.
   */
  async under(prompt: string, grid: TimeHeightWidth): Promise<PromptVelocity> {
    const text = captionBytes(prompt, maxPromptBytes / bytesPerToken);
    const budget = budgetOf(text.length / bytesPerToken, grid);
    const layout = layoutOf(layoutSequence(this.#config, budget, [[{ text, grid }]]));
    using scope = new BufferScope();
    const fixed = scope.own(uploadTree(this.#executor, [await this.#encode(text), layout]));
    const step = this.#compile(`step ${budget.textTokens} ${budget.videoTokens}`, () =>
      stepGraph(this.#config, budget),
    );
    try {
      const executable = await step.executable;
      const kept = leaves(scope.release(fixed)) as DeviceBuffer[];
      const shape = [1, budget.videoTokens, patchChannels(this.#config)];
      const velocity = (patches: Float32Array, timesteps: Float32Array) =>
        this.#step(executable, kept, fromFloat32('f32', shape, patches), timesteps);
      const dispose = () => {
        disposeAll(kept);
        step.uses--;
      };
      return Object.assign(velocity, { [Symbol.dispose]: dispose });
    } catch (error) {
      step.uses--;
      throw error;
    }
  }

  /** What one evaluation of the velocity under a prompt costs; nothing is compiled. */
  costOf(prompt: string, grid: TimeHeightWidth): GraphCost {
    return costOf(stepGraph(this.#config, budgetOf(this.textTokensOf(prompt), grid)));
  }

  /** Text tokens of a prompt. */
  textTokensOf(prompt: string): number {
    return captionBytes(prompt, maxPromptBytes / bytesPerToken).length / bytesPerToken;
  }

  [Symbol.dispose](): void {
    for (const { executable } of this.#compiled.values()) drop(executable);
    this.#compiled.clear();
    disposeAll([...this.#own]);
  }

  /** Text tokens of a prompt, f32 [1, N, width]. */
  async #encode(text: Uint8Array): Promise<HostTensor> {
    const budget = budgetOf(Math.ceil(text.length / textBlock) * (textBlock / bytesPerToken), [0, 0, 0]);
    const encoder = this.#compile(`text ${budget.textTokens}`, () => textGraph(this.#config, budget));
    try {
      using scope = new BufferScope();
      const sequence = layoutSequence(this.#config, budget, [[{ text, grid: [0, 0, 0] }]]);
      const inputs = scope.own(uploadTree(this.#executor, textInputsOf(sequence)));
      const executable = await encoder.executable;
      const outputs = await this.#executor.run(executable, [
        ...this.#weights(),
        ...leaves(inputs),
      ] as DeviceBuffer[]);
      const tokens = toFloat32(await this.#executor.download(at(scope.own([...outputs]), 0)));
      const [count, { width }] = [text.length / bytesPerToken, this.#config];
      return fromFloat32('f32', [1, count, width], tokens.slice(0, count * width));
    } finally {
      encoder.uses--;
    }
  }

  async #step(
    step: Executable,
    fixed: readonly DeviceBuffer[],
    patches: HostTensor,
    timesteps: Float32Array,
  ): Promise<Float32Array> {
    using scope = new BufferScope();
    const changing = [patches, fromFloat32('f32', [1, timesteps.length], timesteps)];
    const inputs = scope.own(uploadTree(this.#executor, changing));
    const outputs = await this.#executor.run(step, [...this.#weights(), ...fixed, ...inputs]);
    scope.own([...outputs]);
    return toFloat32(await this.#executor.download(at(outputs, 0)));
  }

  /** A compiled graph, in use until the caller lowers `uses`. */
  #compile(key: string, graph: () => Graph): Compiled {
    const found = this.#compiled.get(key) ?? this.#begin(key, graph());
    found.uses++;
    // Set anew, it is the last to go.
    this.#compiled.delete(key);
    this.#compiled.set(key, found);
    for (const [oldest, { executable, uses }] of this.#compiled) {
      if (this.#compiled.size <= keptGraphs) break;
      if (uses > 0) continue;
      this.#compiled.delete(oldest);
      drop(executable);
    }
    return found;
  }

  #begin(key: string, graph: Graph): Compiled {
    // Its own weights stay as they are; those of a training do not, and copies of them would stay in memory between samples.
    const fixed = this.#own.map((_, index) => index);
    const executable = this.#executor.compile(graph, { fixed });
    executable.catch(() => this.#compiled.delete(key));
    return { executable, uses: 0 };
  }
}

interface Compiled {
  readonly executable: Promise<Executable>;
  uses: number;
}

/** Frees an executable once it is there; runs that were started before take effect first. */
function drop(executable: Promise<Executable>): void {
  executable.then(
    (compiled) => compiled[Symbol.dispose](),
    () => undefined,
  );
}

function budgetOf(textTokens: number, grid: TimeHeightWidth): SequenceBudget {
  return { rows: 1, textTokens, videoTokens: videoTokensOf(grid), segments: 1 };
}

/** What of a sequence the steps need, in the order of {@link stepGraph}'s arguments. */
function layoutOf<Leaf>({ cos, sin, places }: Sequence<Leaf>) {
  return { cos, sin, places };
}

/** What of a sequence the text encoder needs, in the order of {@link textGraph}'s arguments. */
function textInputsOf<Leaf>({ bytes, byteCos, byteSin, byteSegments }: Sequence<Leaf>) {
  return { bytes, layout: { cos: byteCos, sin: byteSin, segments: byteSegments } };
}

/** Bytes to text tokens: weights, bytes and their layout -> [1, N, width]. */
function textGraph(config: TransformerConfig, budget: SequenceBudget): Graph {
  return trace(
    'text',
    (p, { bytes, layout }) => [encodeText(p.text, bytes, layout)],
    transformerSpec(config),
    textInputsOf(sequenceTypes(config, budget)),
  ).graph;
}

/** One evaluation of the velocity: weights, text, layout, patches, timesteps -> [1, V, P]. */
function stepGraph(config: TransformerConfig, budget: SequenceBudget): Graph {
  const { textTokens, videoTokens } = budget;
  const f32 = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });
  return trace(
    'step',
    (p, text, layout, patches, timesteps) => [
      sampledVelocity(p, config, { text, layout, patches, timesteps }),
    ],
    transformerSpec(config),
    f32(1, textTokens, config.width),
    layoutOf(sequenceTypes(config, budget)),
    f32(1, videoTokens, patchChannels(config)),
    f32(1, videoTokens),
  ).graph;
}
