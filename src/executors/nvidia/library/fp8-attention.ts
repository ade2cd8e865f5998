import { at } from '../../../tensor/shape.ts';
import type { NodeOf } from '../../../tensor/tensor.ts';
import type { Cudnn } from '../bindings/cudnn.ts';
import type { Kernel } from '../kernel.ts';
import type { KernelCache } from '../kernel-cache.ts';
import type { AttentionProblem } from './attention-graph.ts';
import { CudnnGraph, type CudnnPlan, type CudnnTensor } from './cudnn-graph.ts';
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

/** A graph of attention over f8e4m3, whole rows, and its tensors in memory. */
export interface Fp8Attention {
  readonly graph: CudnnGraph;
  readonly plan: CudnnPlan;
  readonly tensors: Readonly<Record<TokenName | FactorName | FoundName, CudnnTensor>>;
}

/** What lowering it needs; graphs are kept by their problem. */
export interface Fp8AttentionContext {
  readonly kernels: KernelCache;
  readonly cudnn: Cudnn;
  readonly quantised: Map<string, Fp8Attention>;
}

/** Plans the attention of a node, once for each problem. @throws CudnnError when cuDNN has no engine for it. */
export function planFp8Attention(context: Fp8AttentionContext, node: NodeOf<'attention'>): Fp8Attention {
  const problem = problemOf(node);
  const key = JSON.stringify(problem);
  const planned = context.quantised.get(key) ?? fp8Attention(context.cudnn, problem);
  context.quantised.set(key, planned);
  return planned;
}

/** Attention of f8e4m3 q, k and v to f8e4m3 y through cuDNN. Its log-sums are not made: nothing may read them. */
export function lowerFp8Attention(context: Fp8AttentionContext, node: NodeOf<'attention'>): LibraryCall {
  const { plan, tensors } = planFp8Attention(context, node);
  const scratch = namedScratch({ numbers: 4 * numberNames.length, workspace: plan.workspaceBytes });
  return {
    scratch: scratch.sizes,
    kernels: [factorKernel],
    bind: (addresses) => {
      const [q, k, v] = addresses.inputs as [bigint, bigint, bigint];
      const [y] = addresses.outputs as [bigint];
      const own = scratch.addresses(addresses);
      const tokens = { q, k, v, y };
      const run = plan.bind(
        [
          ...(['q', 'k', 'v', 'y'] as const).map((name) => [tensors[name], tokens[name]] as const),
          ...numberNames.map((name, index) => [tensors[name], own.numbers + BigInt(4 * index)] as const),
        ],
        own.workspace,
      );
      return [context.kernels.bind(factorKernel, [own.numbers]), run];
    },
  };
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
function fp8Attention(cudnn: Cudnn, problem: AttentionProblem): Fp8Attention {
  const { batch, heads, queries, keys, headSize, scale } = problem;
  const graph = new CudnnGraph(cudnn);
  try {
    const tokens = (count: number, isTransposed = false) => {
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
        strides: [count * width, headSize, ...strides],
        type: 'f8e4m3',
      });
    };
    const [q, k, v, y] = [tokens(queries), tokens(keys, true), tokens(keys), tokens(queries)];
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
    graph.pointwise('add', [largest, graph.pointwise('log', [sum], rows())], rows());
    const p = graph.pointwise('div', [e, sum], scores());
    graph.reduce('largestMagnitude', p, numbers.largestP);
    const mean = graph.matmul(times(p, numbers.scaleP, scores('f8e4m3')), v, means());
    const descaled = times(times(mean, numbers.descaleP, means()), numbers.descaleV, means());
    times(descaled, numbers.scaleY, y);
    graph.reduce('largestMagnitude', descaled, numbers.largestY);
    const [plan] = graph.plans(1);
    if (plan === undefined) throw new Error('cuDNN has no plan');
    return { graph, plan, tensors: { q, k, v, y, ...numbers } };
  } catch (error) {
    graph[Symbol.dispose]();
    throw error;
  }
}
