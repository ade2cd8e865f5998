import type { Cudnn } from '../bindings/cudnn.ts';
import { CudnnGraph, type CudnnPlan, type CudnnTensor } from './cudnn-graph.ts';
import type { KeptPlans } from './kept-plans.ts';

/** Sizes of an attention as cuDNN sees it: with segments, each is an item of the batch. */
export interface AttentionProblem {
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
  /** Keys from the first of one item to the first of the next in memory. Default: `keys`. */
  readonly keyStep?: number;
  /** Elements from one token's values to the next one's in memory. Default: `heads * headSize`. */
  readonly valueStep?: number;
  readonly headSize: number;
  readonly scale: number;
  /** Whether items have lengths of their own, at most `queries` and `keys`. */
  readonly hasLengths: boolean;
  /** Set when items lie one after the other in this many tokens, each at an offset, `queries` = `keys` being a bound. */
  readonly packedTokens?: number;
}

/** Tensors of an attention graph that have memory. Those with ragged offsets are there for packed items only. */
export interface AttentionGraph<Names extends string> {
  readonly graph: CudnnGraph;
  readonly plan: CudnnPlan;
  readonly tensors: Readonly<Record<Names, CudnnTensor>>;
  readonly lengths?: { readonly queries: CudnnTensor; readonly keys: CudnnTensor };
  readonly offsets?: { readonly tokens: CudnnTensor; readonly statistics: CudnnTensor };
}

/** Tensors of the forward graph; statistics are the logarithms of the softmax's denominators. */
export type ForwardNames = 'q' | 'k' | 'v' | 'y' | 'statistics';

/** Tensors of the backward graph; `total` and `dqSum` are memory that it works in, f32. */
export type BackwardNames = ForwardNames | 'dy' | 'dq' | 'dk' | 'dv' | 'total' | 'dqSum';

/**
 * Softmax attention as cuDNN's engines recognise it: S = scale q k^T, masked; P = exp(S - max) / sum; y = P v.
 * @throws CudnnError when it has no engine.
 */
export function attentionForward(
  cudnn: Cudnn,
  kept: KeptPlans,
  problem: AttentionProblem,
): AttentionGraph<ForwardNames> {
  const builder = new AttentionBuilder(cudnn, problem);
  const { graph, scores, rows } = builder;
  const [q, k, v, y] = [builder.queries(), builder.keys(true), builder.values(false), builder.queries()];
  const statistics = builder.statistics();
  const masked = builder.mask(builder.scaledScores(q, k));
  const largest = graph.reduce('max', masked, rows());
  const e = graph.pointwise('exp', [graph.pointwise('sub', [masked, largest], scores())], scores());
  const sum = graph.reduce('sum', e, rows());
  graph.pointwise('add', [largest, graph.pointwise('log', [sum], rows())], statistics);
  const p = graph.pointwise('div', [e, sum], scores('bf16'));
  graph.matmul(p, v, y, { m: builder.lengths?.queries, k: builder.lengths?.keys });
  return builder.finish(kept, { q, k, v, y, statistics });
}

/**
 * Gradients of {@link attentionForward}: P = exp(S - statistics), dv = P^T dy, dS = P (dy v^T - total) with total the
 * sum of dy y, dk = scale dS^T q, dq = scale dS k.
 * @throws CudnnError when it has no engine.
 */
export function attentionBackward(
  cudnn: Cudnn,
  kept: KeptPlans,
  problem: AttentionProblem,
): AttentionGraph<BackwardNames> {
  const builder = new AttentionBuilder(cudnn, problem);
  const { graph, scores, rows, lengths } = builder;
  const { batch, heads, queries, keys, headSize } = problem;
  const [q, k, v] = [builder.queries(), builder.keys(true), builder.values(true)];
  const [y, dy, dq] = [builder.queries(), builder.queries(), builder.queries()];
  const [dk, dv] = [builder.keys(false), builder.keys(false)];
  const statistics = builder.statistics();
  const one = graph.number(1);
  const product = graph.virtual([batch, heads, queries, headSize], {
    strides: [heads * queries * headSize, queries * headSize, heads * headSize, 1],
  });
  const rowSum = graph.reduce('sum', graph.pointwise('mul', [dy, y], product), rows());
  const total = graph.pointwise('mul', [rowSum, one], builder.statistics());
  const shifted = graph.pointwise('sub', [builder.mask(builder.scaledScores(q, k)), statistics], scores());
  const p = graph.pointwise('exp', [shifted], scores());
  graph.matmul(builder.transposed(p), dy, dv, { m: lengths?.keys, k: lengths?.queries });
  const dp = graph.matmul(dy, v, scores(), { m: lengths?.queries, n: lengths?.keys });
  const centred = graph.pointwise('sub', [dp, total], scores());
  const weighted = graph.pointwise('mul', [centred, p], scores());
  const ds = graph.pointwise('mul', [weighted, builder.scale], scores());
  graph.matmul(builder.transposed(ds), q, dk, { m: lengths?.keys, k: lengths?.queries });
  const untransposed = graph.reshape(
    k,
    graph.virtual([batch, heads, keys, headSize], {
      strides: builder.keyStrides(),
      ...(builder.offsets && { ragged: builder.offsets.tokens }),
    }),
  );
  const dqSum = builder.queryGradientSum();
  graph.matmul(ds, untransposed, dqSum, { m: lengths?.queries, k: lengths?.keys });
  graph.pointwise('identity', [dqSum], dq);
  return builder.finish(kept, { q, k, v, y, statistics, dy, dq, dk, dv, total, dqSum });
}

/** The tensors and operations that both graphs share. Sizes are in the order batch, heads, tokens, channels. */
class AttentionBuilder {
  readonly graph: CudnnGraph;
  readonly scale: CudnnTensor;
  readonly lengths: { readonly queries: CudnnTensor; readonly keys: CudnnTensor } | undefined;
  readonly offsets: { readonly tokens: CudnnTensor; readonly statistics: CudnnTensor } | undefined;
  private readonly problem: AttentionProblem;

  constructor(cudnn: Cudnn, problem: AttentionProblem) {
    this.problem = problem;
    this.graph = new CudnnGraph(cudnn);
    this.scale = this.graph.number(problem.scale);
    const list = (count: number, type: 'i32' | 'i64') =>
      this.graph.tensor({ sizes: [count, 1, 1, 1], strides: [1, 1, 1, 1], type });
    const { batch } = problem;
    this.lengths = problem.hasLengths ? { queries: list(batch, 'i32'), keys: list(batch, 'i32') } : undefined;
    this.offsets =
      problem.packedTokens === undefined
        ? undefined
        : { tokens: list(batch + 1, 'i64'), statistics: list(batch + 1, 'i64') };
  }

  /** A virtual tensor of all scores. */
  readonly scores = (type: 'f32' | 'bf16' | 'i32' | 'bool' = 'f32'): CudnnTensor => {
    const { batch, heads, queries, keys } = this.problem;
    return this.graph.virtual([batch, heads, queries, keys], { type });
  };

  /** A virtual tensor of one number for each query. */
  readonly rows = (): CudnnTensor => {
    const { batch, heads, queries } = this.problem;
    return this.graph.virtual([batch, heads, queries, 1], { strides: [heads * queries, queries, 1, 1] });
  };

  /**
   * Strides of tokens of heads of channels, as our tensors lie in memory.
   * @param step tokens from item to item.
   * @param width elements from token to token.
   */
  strides(
    step: number,
    width = this.problem.heads * this.problem.headSize,
  ): [item: number, head: number, token: number, channel: number] {
    return [step * width, this.problem.headSize, width, 1];
  }

  keyStrides() {
    const { keys, keyStep = keys } = this.problem;
    return this.strides(keyStep);
  }

  queries(): CudnnTensor {
    const { batch, heads, queries, headSize } = this.problem;
    return this.tokens([batch, heads, queries, headSize], this.strides(queries));
  }

  /** Keys, or their gradient or that of values; transposed, the last two axes are swapped. */
  keys(isTransposed: boolean): CudnnTensor {
    return this.tokensOfKeys(isTransposed, this.keyStrides());
  }

  /** Values, which may lie further apart than keys; transposed, their last two axes are swapped. */
  values(isTransposed: boolean): CudnnTensor {
    const { keys, keyStep = keys, valueStep } = this.problem;
    return this.tokensOfKeys(isTransposed, this.strides(keyStep, valueStep));
  }

  private tokensOfKeys(isTransposed: boolean, strides: readonly number[]): CudnnTensor {
    const { batch, heads, keys, headSize } = this.problem;
    const [b, h, t, c] = strides as [number, number, number, number];
    return isTransposed
      ? this.tokens([batch, heads, headSize, keys], [b, h, c, t])
      : this.tokens([batch, heads, keys, headSize], [b, h, t, c]);
  }

  /** A number for each query and head in memory: [batch, heads, queries], or [tokens, heads] when packed. */
  statistics(): CudnnTensor {
    const { batch, heads, queries } = this.problem;
    const isPacked = this.offsets !== undefined;
    return this.graph.tensor({
      sizes: [batch, heads, queries, 1],
      strides: isPacked ? [queries * heads, 1, heads, 1] : [heads * queries, queries, 1, 1],
      type: 'f32',
      ...(this.offsets && { ragged: this.offsets.statistics }),
    });
  }

  /** Where the gradient of the queries is summed, f32: as the queries when packed, else [batch, heads, queries, channels]. */
  queryGradientSum(): CudnnTensor {
    const { batch, heads, queries, headSize } = this.problem;
    const sizes = [batch, heads, queries, headSize];
    return this.offsets === undefined
      ? this.graph.tensor({ sizes, type: 'f32' })
      : this.graph.tensor({
          sizes,
          strides: this.strides(queries),
          type: 'f32',
          ragged: this.offsets.tokens,
        });
  }

  scaledScores(q: CudnnTensor, k: CudnnTensor): CudnnTensor {
    const limits = { m: this.lengths?.queries, n: this.lengths?.keys };
    return this.graph.pointwise(
      'mul',
      [this.graph.matmul(q, k, this.scores(), limits), this.scale],
      this.scores(),
    );
  }

  /** Scores with those beyond the lengths set to -infinity. */
  mask(scores: CudnnTensor): CudnnTensor {
    const { graph, lengths } = this;
    if (lengths === undefined) return scores;
    const index = (axis: number) =>
      graph.pointwise('index', [scores], this.scores('i32'), { precision: 'i32', axis });
    const compare = (mode: 'less' | 'and', a: CudnnTensor, b: CudnnTensor) =>
      graph.pointwise(mode, [a, b], this.scores('bool'), { precision: 'bool' });
    const inside = compare(
      'and',
      compare('less', index(2), lengths.queries),
      compare('less', index(3), lengths.keys),
    );
    const nothing = graph.number(Number.NEGATIVE_INFINITY);
    return graph.pointwise('select', [scores, nothing, inside], this.scores());
  }

  /** Scores with queries and keys swapped, in bf16, as an operand of a product. */
  transposed(scores: CudnnTensor): CudnnTensor {
    const { batch, heads, queries, keys } = this.problem;
    const strides = [heads * queries * keys, queries * keys, 1, keys];
    return this.graph.reshape(
      scores,
      this.graph.virtual([batch, heads, keys, queries], { type: 'bf16', strides }),
    );
  }

  finish<Names extends string>(
    kept: KeptPlans,
    tensors: Readonly<Record<Names, CudnnTensor>>,
  ): AttentionGraph<Names> {
    const { graph, lengths, offsets } = this;
    try {
      const plan = kept.planOf(graph);
      return { graph, plan, tensors, ...(lengths && { lengths }), ...(offsets && { offsets }) };
    } catch (error) {
      graph[Symbol.dispose]();
      throw error;
    }
  }

  private tokens(sizes: readonly number[], strides: readonly number[]): CudnnTensor {
    return this.graph.tensor({
      sizes,
      strides,
      type: 'bf16',
      ...(this.offsets && { ragged: this.offsets.tokens }),
    });
  }
}
