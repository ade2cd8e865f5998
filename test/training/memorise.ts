import {
  type DeviceBuffer,
  downloadTree,
  type Executable,
  type Executor,
  inputsOf,
  uploadTree,
} from '../../src/executors/executor.ts';
import type { SequenceLayout } from '../../src/nn/attention.ts';
import { linear, linearSpec } from '../../src/nn/linear.ts';
import { initialize, type Parameters, parameter } from '../../src/nn/parameters.ts';
import { rotaryAngles } from '../../src/nn/rotary-positions.ts';
import { transformerBlock, transformerBlockSpec } from '../../src/nn/transformer-block.ts';
import { fold, keyFromSeed, randomInts } from '../../src/random/philox.ts';
import { gather, rmsNorm } from '../../src/tensor/functions.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, hostTensor } from '../../src/tensor/host-tensor.ts';
import { at, type TensorType } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { block, trace } from '../../src/tensor/trace.ts';
import { entries, leaves, mapTree, withLeaves } from '../../src/tensor/tree.ts';
import {
  type AdamSettings,
  adamSchedule,
  adamState,
  adamW,
  type Schedule,
} from '../../src/training/optimizer.ts';

/** A transformer that learns random sequences of bytes by heart, and how it is trained. */
export interface MemoriseOptions {
  readonly width: number;
  readonly layers: number;
  readonly headSize: number;
  readonly sequences: number;
  readonly tokens: number;
  readonly schedule: Schedule;
  readonly recompute?: boolean;
}

/** A transformer of 4.9 million parameters that learns 64 sequences: its loss falls to a hundredth in these steps. */
export const overfitting = {
  width: 256,
  layers: 6,
  headSize: 64,
  sequences: 64,
  tokens: 8,
  schedule: { rate: 1e-3, warmup: 20, steps: 300 },
} as const satisfies MemoriseOptions;

type BlockParameters = Parameters<ReturnType<typeof transformerBlockSpec>>;

const vocabulary = 256;
const settings: AdamSettings = { maxNorm: 1, weightDecay: 0.01 };

/** Parameters and moments on the host. */
export type TrainingState = ReturnType<typeof initialState>;

function modelSpec({ width, layers, headSize }: MemoriseOptions) {
  return {
    embedding: parameter([vocabulary, width], { kind: 'normal', deviation: 1 }),
    blocks: Array.from({ length: layers }, () => transformerBlockSpec({ width, headSize })),
    head: linearSpec(width, vocabulary),
  };
}

/** The state before the first step. */
export function initialState(options: MemoriseOptions) {
  const specs = modelSpec(options);
  return { parameters: initialize(specs, keyFromSeed(11)), moments: adamState(specs) };
}

/** The training of {@link MemoriseOptions} on an executor: each step gives its loss. */
export class Memorise implements AsyncDisposable {
  private readonly executor: Executor;
  private readonly executable: Executable;
  private readonly fixed: DeviceBuffer[];
  private readonly options: MemoriseOptions;
  private state: DeviceBuffer[];

  private constructor(
    executor: Executor,
    executable: Executable,
    state: DeviceBuffer[],
    fixed: DeviceBuffer[],
    options: MemoriseOptions,
  ) {
    this.executor = executor;
    this.executable = executable;
    this.state = state;
    this.fixed = fixed;
    this.options = options;
  }

  static async start(
    executor: Executor,
    options: MemoriseOptions,
    from: TrainingState = initialState(options),
  ): Promise<Memorise> {
    const { graph, donate } = traceStep(options);
    const executable = await executor.compile(graph, { donate });
    const state = leaves(uploadTree(executor, [from.parameters, from.moments])) as DeviceBuffer[];
    const fixed = leaves(uploadTree(executor, batch(options))) as DeviceBuffer[];
    return new Memorise(executor, executable, state, fixed, options);
  }

  /** Trains on everything once; `step` counts from 1. */
  async step(step: number): Promise<number> {
    const { rate, epsilon, keep } = adamSchedule(this.options.schedule, step, settings);
    const now = [rate, epsilon, keep].map((value) =>
      this.executor.upload(fromFloat32('f32', [], Float32Array.of(value))),
    );
    const outputs = await this.executor.run(this.executable, [...this.state, ...this.fixed, ...now]);
    for (const buffer of now) buffer[Symbol.dispose]();
    const [loss, ...state] = outputs;
    this.state = state;
    using buffer = loss!;
    return at((await this.executor.download(buffer)).data, 0);
  }

  /** Parameters and moments as they are now. */
  async save(): Promise<TrainingState> {
    const form = initialForm(this.options);
    const values = leaves(await downloadTree(this.executor, this.state)) as HostTensor[];
    return withLeaves(form, values) as unknown as TrainingState;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const buffer of [...this.state, ...this.fixed]) buffer[Symbol.dispose]();
    this.executable[Symbol.dispose]();
  }
}

function initialForm(options: MemoriseOptions) {
  const specs = modelSpec(options);
  return { parameters: specs, moments: { mean: specs, square: specs } };
}

function batch({ sequences, tokens, headSize }: MemoriseOptions) {
  const key = keyFromSeed(5);
  const bytes = (name: string) =>
    Int32Array.from(randomInts(fold(key, name), sequences * tokens, vocabulary));
  const answers = new Float32Array(sequences * tokens * vocabulary);
  bytes('answers').forEach((answer, token) => {
    answers[token * vocabulary + answer] = 1;
  });
  return {
    x: hostTensor('i32', [sequences, tokens], bytes('questions')),
    answers: fromFloat32('f32', [sequences, tokens, vocabulary], answers),
    angles: rotaryAngles(
      Array.from({ length: tokens }, (_, i) => [i]),
      [headSize / 2],
    ),
  };
}

function traceStep(options: MemoriseOptions) {
  const specs = modelSpec(options);
  const layer = block(
    'layer',
    (q: BlockParameters, x: Tensor, angles: SequenceLayout) => transformerBlock(q, x, angles),
    {
      recompute: options.recompute ?? false,
    },
  );
  const scalar: TensorType = { shape: [], dtype: 'f32' };
  const traced = trace(
    'memorise',
    (p, state, { x, answers, angles }, now) => {
      const h = p.blocks.reduce((value, q) => layer(q, value, angles), gather(p.embedding, x)); // [B, S, W]
      const loss = crossEntropy(linear(p.head, rmsNorm(h)), answers);
      const { parameters, state: moments } = adamW(p, gradients(loss, p), state, now, settings);
      return { loss, parameters, moments };
    },
    specs,
    adamState(specs),
    batch(options),
    { rate: scalar, epsilon: scalar, keep: scalar },
  );
  return { graph: traced.graph, donate: inputsOf(traced.parameters, 0, 1) };
}

/** Mean of -log p(answer), answers one-hot. */
function crossEntropy(logits: Tensor, answers: Tensor): Tensor {
  const shifted = logits.sub(logits.max([-1], true));
  const logSum = shifted.exp().sum([-1], true).log();
  return logSum.sub(shifted).mul(answers).sum([-1]).mean();
}

/** Every parameter and moment by its path, for saving. */
export function named(state: TrainingState): [string, HostTensor][] {
  return entries(state) as [string, HostTensor][];
}

/** A state from {@link named} values. */
export function fromNamed(options: MemoriseOptions, values: ReadonlyMap<string, HostTensor>): TrainingState {
  return mapTree(initialForm(options), (_, path) => values.get(path)!) as unknown as TrainingState;
}

/** The parameters of the model, for counting. */
export function specsOf(options: MemoriseOptions): object {
  return modelSpec(options);
}
