import { inputsOf } from '../../src/executors/executor.ts';
import { autoencoderSpec } from '../../src/models/autoencoder/autoencoder.ts';
import { type AutoencoderConfig, checkAutoencoderConfig } from '../../src/models/autoencoder/config.ts';
import { autoencoderLoss } from '../../src/models/autoencoder/loss.ts';
import { linear, linearSpec } from '../../src/nn/linear.ts';
import { type Parameters, parameterCount } from '../../src/nn/parameters.ts';
import { rotaryAngles } from '../../src/nn/rotary-positions.ts';
import {
  type TransformerBlockSpec,
  transformerBlock,
  transformerBlockSpec,
} from '../../src/nn/transformer-block.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { layerNorm } from '../../src/tensor/functions.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount, formatType, type Shape, type TensorType } from '../../src/tensor/shape.ts';
import type { Graph, Tensor } from '../../src/tensor/tensor.ts';
import { block, trace } from '../../src/tensor/trace.ts';
import { leaves, mapTree } from '../../src/tensor/tree.ts';
import { type AdamState, adamSchedule, adamW } from '../../src/training/optimizer.ts';
import type { AutoencoderCase, BenchCase, TransformerCase } from './cases.ts';

/** A case as our graph, and values for its inputs. Outputs of a step are the donated inputs' successors, then the loss. */
export interface Work {
  readonly graph: Graph;
  readonly donate: readonly number[];
  /** Weights that stay the same from run to run: those of a forward pass. */
  readonly fixed: readonly number[];
  readonly values: readonly HostTensor[];
  readonly parameters: number;
}

/** How our side is made. */
export interface WorkSettings {
  /** In what a forward pass is given its weights. A training step has them in f32. Default f32. */
  readonly weights?: 'f32' | 'bf16';
  /** Whether the backward pass of a step computes each block again instead of keeping what is in it. Default false. */
  readonly recompute?: boolean;
}

/** Traces a case and draws values for it. */
export function makeWork(given: BenchCase, settings: WorkSettings = {}): Work {
  if (given.kind === 'autoencoder') return autoencoderStep(given);
  return given.work === 'step' ? transformerStep(given, settings) : transformerForward(given, settings);
}

function f32(...shape: number[]): TensorType {
  return { shape, dtype: 'f32' };
}

function transformerSpec({ layers, width, heads, hidden, text, values }: TransformerCase) {
  const sizes = { width, headSize: width / heads, hidden, condition: 'shared' as const };
  return {
    first: linearSpec(values, width),
    blocks: Array.from({ length: layers }, () =>
      transformerBlockSpec({ ...sizes, ...(text > 0 && { context: width }) }),
    ),
    last: linearSpec(width, values),
  };
}

/** What a transformer is given besides weights; angles are those of a line of frames of 8x8 tokens. */
function transformerInputs({ width, heads, tokens, text, values }: TransformerCase) {
  const pairs = width / heads / 2;
  const side = Math.floor(pairs / 3);
  const places = Array.from({ length: tokens }, (_, i) => [i >> 6, (i >> 3) & 7, i & 7]);
  return {
    x: f32(1, tokens, values),
    modulation: f32(1, 1, 6 * width),
    angles: rotaryAngles(places, [pairs - 2 * side, side, side]),
    ...(text > 0 && { context: f32(1, text, width) }),
  };
}

type TransformerParameters = Parameters<ReturnType<typeof transformerSpec>>;

interface Given {
  readonly x: Tensor;
  readonly modulation: Tensor;
  readonly angles: { readonly cos: Tensor; readonly sin: Tensor };
  readonly context?: Tensor;
}

/** [1, tokens, values] -> [1, tokens, values] */
function transformer(p: TransformerParameters, given: Given, { recompute = false }: WorkSettings): Tensor {
  const layer = block(
    'layer',
    (q: Parameters<TransformerBlockSpec>, h: Tensor, { modulation, angles, context }: Omit<Given, 'x'>) =>
      transformerBlock(q, h, angles, modulation, context),
    { recompute },
  );
  const { x, ...shared } = given;
  const h = p.blocks.reduce((value, q) => layer(q, value, shared), linear(p.first, x)); // [1, tokens, width]
  return linear(p.last, layerNorm(h));
}

function transformerForward(given: TransformerCase, settings: WorkSettings): Work {
  const { weights: dtype = 'f32' } = settings;
  const spec = mapTree(transformerSpec(given), ({ shape }): TensorType => ({ shape, dtype }));
  const inputs = transformerInputs(given);
  const traced = trace(
    'forward',
    (p, values) => [transformer(widened(p) as TransformerParameters, values, settings)],
    spec,
    inputs,
  );
  return {
    graph: traced.graph,
    donate: [],
    fixed: inputsOf(traced.parameters, 0),
    values: drawAll([spec, inputs]),
    parameters: parameterCount(spec),
  };
}

/** Weights as the models take them, in f32. */
function widened(parameters: object): object {
  return mapTree(parameters, (leaf) => {
    const weight = leaf as Tensor;
    return weight.dtype === 'f32' ? weight : weight.cast('f32');
  });
}

function transformerStep(given: TransformerCase, settings: WorkSettings): Work {
  const spec = transformerSpec(given);
  const inputs = { ...transformerInputs(given), target: f32(1, given.tokens, given.values) };
  return stepOf(spec, inputs, (p, { target, ...rest }) =>
    transformer(p, rest, settings).sub(target).square().mean(),
  );
}

/** The configuration of a case. */
export function configOf(given: AutoencoderCase): AutoencoderConfig {
  const { latentChannels, channels, encoderBlocks, decoderBlocks } = given;
  const [latentMean, latentStd] = [0, 1].map((value) => new Array<number>(latentChannels).fill(value));
  const sizes = { latentChannels, channels, encoderBlocks, decoderBlocks };
  return checkAutoencoderConfig({ ...sizes, latentMean, latentStd });
}

function autoencoderStep(given: AutoencoderCase): Work {
  const { clips, frames, side, latentChannels } = given;
  const config = configOf(given);
  const inputs = {
    video: f32(clips, frames, side, side, 3),
    noise: f32(clips, 1 + (frames - 1) / 4, side / 8, side / 8, latentChannels),
  };
  return stepOf(
    autoencoderSpec(config),
    inputs,
    (p, { video, noise }) => autoencoderLoss(p, config, video, noise).loss,
  );
}

/** Loss, gradients, AdamW; parameters and moments are donated. */
function stepOf<Spec extends object, Inputs extends object>(
  spec: Spec,
  inputs: Inputs,
  lossOf: (p: Parameters<Spec>, inputs: Parameters<Inputs>) => Tensor,
): Work {
  const settings = { weightDecay: 0.01 };
  const scalar = f32();
  const traced = trace(
    'step',
    (p, moments, values, now) => {
      const parameters = p as Parameters<Spec>;
      const loss = lossOf(parameters, values as Parameters<Inputs>);
      const state = moments as unknown as AdamState<typeof p>;
      const result = adamW(p, gradients(loss, p), state, now, settings);
      return { parameters: result.parameters, state: result.state, loss };
    },
    spec,
    { mean: spec, square: spec },
    inputs,
    { rate: scalar, epsilon: scalar, keep: scalar },
  );
  // Moments as after many steps of training, so that updates are of a usual size.
  const means = drawAll([spec], (type) => draw(type, 1e-4));
  const squares = drawAll([spec], ({ shape }) => filled(shape, 1e-6));
  const { rate, epsilon, keep } = adamSchedule({ rate: 1e-5 }, 1000, settings);
  const now = [rate, epsilon, keep].map((value) => filled([], value));
  return {
    graph: traced.graph,
    donate: inputsOf(traced.parameters, 0, 1),
    fixed: [],
    values: [...drawAll([spec]), ...means, ...squares, ...drawAll([inputs]), ...now],
    parameters: parameterCount(spec),
  };
}

const period = 1_048_573;
const noise = normal(keyFromSeed(1), period);

/**
 * Values for every leaf of some trees, random ones by default; a host tensor is left as it is. Leaves of one type share
 * their values, which no time depends on.
 */
function drawAll(
  trees: readonly object[],
  make: (type: TensorType) => HostTensor = (type) => draw(type, deviationOf(type)),
): HostTensor[] {
  const known = new Map<string, HostTensor>();
  return (leaves(trees) as (TensorType | HostTensor)[]).map((leaf) => {
    if ('data' in leaf) return leaf;
    const key = formatType(leaf);
    const drawn = known.get(key) ?? make(leaf);
    known.set(key, drawn);
    return drawn;
  });
}

/** Of matrices and kernels such that outputs have the variance of inputs, of vectors 0.1, of all else 1. */
function deviationOf({ shape }: TensorType): number {
  if (shape.length === 1) return 0.1;
  if (shape.length !== 2 && shape.length !== 4) return 1;
  return 1 / Math.sqrt(elementCount(shape.slice(1)));
}

function draw({ shape, dtype }: TensorType, deviation: number): HostTensor {
  const values = new Float32Array(elementCount(shape));
  const scaled = noise.map((value) => value * deviation);
  for (let start = 0; start < values.length; start += period)
    values.set(scaled.subarray(0, values.length - start), start);
  return fromFloat32(dtype as 'f32' | 'bf16', shape, values);
}

function filled(shape: Shape, value: number): HostTensor {
  return fromFloat32('f32', shape, new Float32Array(elementCount(shape)).fill(value));
}
