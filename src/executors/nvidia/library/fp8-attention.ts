import { at } from '../../../tensor/shape.ts';
import type { NodeOf } from '../../../tensor/tensor.ts';
import type { Cudnn } from '../bindings/cudnn.ts';
import type { Device } from '../device.ts';
import type { Kernel } from '../kernel.ts';
import type { KernelCache, Launch } from '../kernel-cache.ts';
import { mergeKernel } from './attention-by-keys.ts';
import type { AttentionProblem } from './attention-graph.ts';
import { CudnnGraph, type CudnnPlan, type CudnnTensor } from './cudnn-graph.ts';
import type { KeptPlans } from './kept-plans.ts';
import { type LibraryCall, namedScratch } from './library-call.ts';

/** Numbers on the device that cuDNN multiplies by, and those that it finds: f32, one each. */
const factors = {
  /** Of q, k and v, which are given as they are. */
  descaleQ: 1,
  descaleK: 1,
  descaleV: 1,
  /** The softmax's values, at most 1, times a power of two that f8e4m3 holds, and back. */
  scaleP: 256,
  descaleP: 1 / 256,
  /** Of y, a mean of v and so no larger. */
  scaleY: 1,
} as const;
const found = ['largestP', 'largestY'] as const;

type FactorName = keyof typeof factors;
type FoundName = (typeof found)[number];
type TokenName = 'q' | 'k' | 'v' | 'y';

/** A graph of attention over f8e4m3, whole rows, and its tensors in memory; log-sums where they are wanted. */
export interface Fp8Attention {
  readonly graph: CudnnGraph;
  readonly plan: CudnnPlan;
  readonly tensors: Readonly<Record<TokenName | FactorName | FoundName, CudnnTensor>>;
  readonly logSums?: CudnnTensor;
}

/** What lowering it needs; graphs are kept by their problem, and how many keys are faster taken apart. */
export interface Fp8AttentionContext {
  readonly device: Device;
  readonly kernels: KernelCache;
  readonly cudnn: Cudnn;
  readonly kept: KeptPlans;
  readonly quantised: Map<string, Fp8Attention>;
  readonly lateKeys: Map<string, number>;
}

/** Plans the attention of a node, once for each problem. @throws CudnnError when cuDNN has no engine for it. */
export function planFp8Attention(context: Fp8AttentionContext, node: NodeOf<'attention'>): void {
  planned(context, problemOf(node));
}

/**
 * Attention of f8e4m3 q, k and v to f8e4m3 y through cuDNN: in one run, which makes no log-sums, so that nothing may read
 * them, or in two, where keys that do not fill a tile are faster taken apart.
 */
export function lowerFp8Attention(context: Fp8AttentionContext, node: NodeOf<'attention'>): LibraryCall {
  const problem = problemOf(node);
  const late = lateKeys(context, problem);
  return late === 0 ? inOneRun(context, problem) : inTwoRuns(context, problem, late);
}

function inOneRun(context: Fp8AttentionContext, problem: AttentionProblem): LibraryCall {
  const whole = planned(context, problem);
  const scratch = namedScratch({ numbers: numberBytes, workspace: whole.plan.workspaceBytes });
  return {
    scratch: scratch.sizes,
    kernels: [factorKernel],
    bind: (addresses) => {
      const [q, k, v] = addresses.inputs as [bigint, bigint, bigint];
      const [y] = addresses.outputs as [bigint];
      const own = scratch.addresses(addresses);
      return [
        context.kernels.bind(factorKernel, [own.numbers]),
        bound(whole, { q, k, v, y, ...own, logSums: 0n }),
      ];
    },
  };
}

/** The last `late` keys in a run of their own, merged with the others by their log-sums. */
function inTwoRuns(context: Fp8AttentionContext, problem: AttentionProblem, late: number): LibraryCall {
  const { kernels } = context;
  const [first, second] = parts(context, problem, late);
  const { batch: rows, queries, keys, heads, headSize } = problem;
  const tokens = rows * queries * heads;
  const scratch = namedScratch({
    numbers: numberBytes,
    workspace: Math.max(first.plan.workspaceBytes, second.plan.workspaceBytes),
    lateY: tokens * headSize,
    earlySums: 4 * tokens,
    lateSums: 4 * tokens,
  });
  const merge = mergeKernel({ rows, queries, heads, headSize }, 'f8e4m3', 'f8e4m3');
  return {
    scratch: scratch.sizes,
    kernels: [factorKernel, merge],
    bind: (addresses) => {
      const [q, k, v] = addresses.inputs as [bigint, bigint, bigint];
      const [y, logSums] = addresses.outputs as [bigint, bigint];
      const own = scratch.addresses(addresses);
      const skipped = BigInt((keys - late) * heads * headSize);
      const behind = { k: k + skipped, v: v + skipped, y: own.lateY, logSums: own.lateSums };
      return [
        kernels.bind(factorKernel, [own.numbers]),
        bound(first, { q, k, v, y, ...own, logSums: own.earlySums }),
        bound(second, { q, ...own, ...behind }),
        kernels.bind(merge, [y, own.lateY, own.earlySums, own.lateSums, y, logSums]),
      ];
    },
  };
}

/** Where a run finds its tensors. */
interface RunAddresses extends Readonly<Record<TokenName, bigint>> {
  readonly logSums: bigint;
  readonly numbers: bigint;
  readonly workspace: bigint;
}

function bound({ plan, tensors, logSums }: Fp8Attention, addresses: RunAddresses): Launch {
  return plan.bind(
    [
      ...(['q', 'k', 'v', 'y'] as const).map((name) => [tensors[name], addresses[name]] as const),
      ...numberNames.map((name, index) => [tensors[name], addresses.numbers + BigInt(4 * index)] as const),
      ...(logSums === undefined ? [] : [[logSums, addresses.logSums] as const]),
    ],
    addresses.workspace,
  );
}

function planned(context: Fp8AttentionContext, problem: AttentionProblem, hasSums = false): Fp8Attention {
  const key = JSON.stringify({ ...problem, hasSums });
  const made = context.quantised.get(key) ?? fp8Attention(context, problem, hasSums);
  context.quantised.set(key, made);
  return made;
}

/** The runs over all keys but the `late` last ones, and over those. */
function parts(context: Fp8AttentionContext, problem: AttentionProblem, late: number) {
  const { keys } = problem;
  const run = (count: number) => planned(context, { ...problem, keys: count, keyStep: keys }, true);
  return [run(keys - late), run(late)] as const;
}

/** cuDNN takes keys in tiles of this many, and is slower throughout when they do not fill the last one. */
const tile = 128;
/** Fewest keys with which that may be worth a second run. */
const fewestKeys = 8192;

/** How many of the last keys are taken apart, as timed once for each problem; 0: none. */
function lateKeys(context: Fp8AttentionContext, problem: AttentionProblem): number {
  const key = JSON.stringify(problem);
  const known = context.lateKeys.get(key);
  if (known !== undefined) return known;
  const late = problem.keys % tile;
  const isWorth = problem.keys >= fewestKeys && late > 1 && isFasterApart(context, problem, late);
  const chosen = isWorth ? late : 0;
  context.lateKeys.set(key, chosen);
  return chosen;
}

function isFasterApart(context: Fp8AttentionContext, problem: AttentionProblem, late: number): boolean {
  const { device } = context;
  const { batch, queries, keys, heads, headSize } = problem;
  const elements = batch * Math.max(queries, keys) * heads * headSize;
  const blocks: bigint[] = [];
  const allocate = (bytes: number) => {
    const address = device.memory.allocate(bytes);
    blocks.push(address);
    device.clear(address, bytes);
    return address;
  };
  try {
    const runs = [planned(context, problem), ...parts(context, problem, late)] as const;
    const addresses = {
      q: allocate(elements),
      k: allocate(elements),
      v: allocate(elements),
      y: allocate(elements),
      logSums: allocate(4 * batch * queries * heads),
      numbers: allocate(numberBytes),
      workspace: allocate(Math.max(1, ...runs.map(({ plan }) => plan.workspaceBytes))),
    };
    const [whole = 0, first = 0, second = 0] = runs.map((run) => {
      const launch = bound(run, addresses);
      launch();
      return device.time(launch, 3);
    });
    // The merging reads two results and writes one.
    const copy = device.time(() => device.copy(addresses.y, addresses.q, elements), 3);
    return first + second + 1.5 * copy < whole;
  } catch {
    return false;
  } finally {
    for (const address of blocks) device.memory.release(address);
  }
}

function problemOf({ operands: [q, k], attributes: { scale } }: NodeOf<'attention'>): AttentionProblem {
  return {
    batch: at(q.shape, 0),
    heads: at(q.shape, 2),
    queries: at(q.shape, 1),
    keys: at(k.shape, 1),
    headSize: at(q.shape, 3),
    scale,
    hasLengths: false,
  };
}

const factorNames = Object.keys(factors) as FactorName[];
const numberNames = [...factorNames, ...found];
const numberBytes = 4 * numberNames.length;

/** Writes {@link factors}, and zeros for what is found. */
const factorKernel: Kernel = {
  name: 'fp8_attention_factors',
  source: `extern "C" __global__ void fp8_attention_factors(float* numbers) {
  ${numberNames.map((name, index) => `numbers[${index}] = ${name in factors ? `${factors[name as FactorName].toFixed(8)}f` : '0.0f'};`).join('\n  ')}
}`,
  grid: [1, 1, 1],
  block: [1, 1, 1],
  sharedBytes: 0,
};

/**
 * Softmax attention over f8e4m3 as cuDNN's engines recognise it: S = scale descaleQ descaleK q k^T, P the softmax of S,
 * y = scaleY descaleP descaleV (scaleP P) v. Sizes are in the order batch, heads, tokens, channels.
 */
function fp8Attention(
  { cudnn, kept }: Fp8AttentionContext,
  problem: AttentionProblem,
  hasSums: boolean,
): Fp8Attention {
  const { batch, heads, queries, keys, keyStep = keys, headSize, scale } = problem;
  const graph = new CudnnGraph(cudnn);
  try {
    const tokens = (count: number, step: number, isTransposed = false) => {
      const width = heads * headSize;
      const [sizes, strides] = isTransposed
        ? [
            [headSize, count],
            [1, width],
          ]
        : [
            [count, headSize],
            [width, 1],
          ];
      return graph.tensor({
        sizes: [batch, heads, ...sizes],
        strides: [step * width, headSize, ...strides],
        type: 'f8e4m3',
      });
    };
    const [q, y] = [tokens(queries, queries), tokens(queries, queries)];
    const [k, v] = [tokens(keys, keyStep, true), tokens(keys, keyStep)];
    const numbers = Object.fromEntries(
      numberNames.map((name) => [name, graph.tensor({ sizes: [1, 1, 1, 1], type: 'f32' })]),
    ) as Record<FactorName | FoundName, CudnnTensor>;
    const scores = (type: 'f32' | 'f8e4m3' = 'f32') => graph.virtual([batch, heads, queries, keys], { type });
    const rows = () => graph.virtual([batch, heads, queries, 1]);
    const means = () => graph.virtual([batch, heads, queries, headSize]);
    const times = (x: CudnnTensor, factor: CudnnTensor, to: CudnnTensor) =>
      graph.pointwise('mul', [x, factor], to);

    const product = times(graph.matmul(q, k, scores()), graph.number(scale), scores());
    const scaled = times(times(product, numbers.descaleQ, scores()), numbers.descaleK, scores());
    const largest = graph.reduce('max', scaled, rows());
    const e = graph.pointwise('exp', [graph.pointwise('sub', [scaled, largest], scores())], scores());
    const sum = graph.reduce('sum', e, rows());
    const logSums = hasSums
      ? graph.tensor({ sizes: [batch, heads, queries, 1], type: 'f32' })
      : graph.virtual([batch, heads, queries, 1]);
    graph.pointwise('add', [largest, graph.pointwise('log', [sum], rows())], logSums);
    const p = graph.pointwise('div', [e, sum], scores());
    graph.reduce('largestMagnitude', p, numbers.largestP);
    const mean = graph.matmul(times(p, numbers.scaleP, scores('f8e4m3')), v, means());
    const descaled = times(times(mean, numbers.descaleP, means()), numbers.descaleV, means());
    times(descaled, numbers.scaleY, y);
    graph.reduce('largestMagnitude', descaled, numbers.largestY);
    const plan = kept.planOf(graph);
    return { graph, plan, tensors: { q, k, v, y, ...numbers }, ...(hasSums && { logSums }) };
  } catch (error) {
    graph[Symbol.dispose]();
    throw error;
  }
}
