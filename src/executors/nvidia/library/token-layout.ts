import type { Kernel } from '../kernel.ts';
import type { AttentionProblem } from './attention-graph.ts';
import { lines } from './conversion-kernels.ts';

/** cuDNN asks that packed tensors have room for tokens in multiples of this. */
const tokenMultiple = 64;

/** Sizes of an attention node: rows of queries and keys, and segments in each row, if there are any. */
export interface AttentionSizes {
  readonly rows: number;
  readonly queries: number;
  readonly keys: number;
  /** Keys from one row's first to the next one's in memory, if there are others between. Default: `keys`. */
  readonly keyStep?: number;
  /** Elements from one token's values to the next one's, if there are others between. Default: `heads * headSize`. */
  readonly valueStep?: number;
  readonly heads: number;
  readonly headSize: number;
  /** Segments in each row; undefined for attention over whole rows. */
  readonly segments: number | undefined;
  readonly scale: number;
}

/** The attention as cuDNN is given it: each segment is an item of its own, packed after one another. */
export function problemOf(sizes: AttentionSizes, isBackward: boolean): AttentionProblem {
  const { rows, queries, keys, keyStep, valueStep, heads, headSize, segments, scale } = sizes;
  const steps = { ...(keyStep && { keyStep }), ...(valueStep && { valueStep }) };
  const common = { heads, queries, keys, ...steps, headSize, scale };
  if (segments === undefined) {
    // Without full lengths, engines of the backward pass read past keys that do not fill a tile of 128.
    return { ...common, batch: rows, hasLengths: isBackward && keys % 128 !== 0 };
  }
  return { ...common, batch: rows * segments, hasLengths: true, packedTokens: rows * queries };
}

/** Elements of a tensor of tokens; packed ones with the room that cuDNN asks for. */
export function tokenElements({ rows, heads, headSize, segments }: AttentionSizes, tokens: number): number {
  const multiple = segments === undefined ? 1 : tokenMultiple;
  return Math.ceil((rows * tokens) / multiple) * multiple * heads * headSize;
}

/** Number of items, and bytes of their lengths (i32) and offsets (i64). */
export function indexBytes({ rows, segments = 1 }: AttentionSizes): { lengths: number; offsets: number } {
  return { lengths: 4 * rows * segments, offsets: 8 * (rows * segments + 1) };
}

/**
 * From segment offsets i32 [rows, N + 1]: the length of every segment, and where its first token is in tensors of
 * tokens and in statistics [tokens, heads], in elements. Parameters: segments, lengths, tokens, statistics.
 */
export function segmentKernel({ rows, queries, heads, headSize, segments = 0 }: AttentionSizes): Kernel {
  const items = rows * segments;
  const name = `segments_${rows}_${queries}_${heads}_${headSize}_${segments}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const int* __restrict__ segments, int* __restrict__ lengths, long long* __restrict__ tokens, long long* __restrict__ statistics) {
  int item = blockIdx.x * 256 + threadIdx.x;
  if (item > ${items}) return;
  long long start = ${rows * queries}LL;
  if (item < ${items}) {
    int row = item / ${segments};
    const int* at = segments + row * ${segments + 1} + item % ${segments};
    start = row * ${queries}LL + at[0];
    lengths[item] = at[1] - at[0];
  }
  tokens[item] = start * ${heads * headSize}LL;
  statistics[item] = start * ${heads}LL;
}`,
    ...lines(items + 1),
  };
}

/** Writes the full length of queries and of keys for every row. Parameters: queries, keys. */
export function fullLengthsKernel({ rows, queries, keys }: AttentionSizes): Kernel {
  const name = `full_lengths_${rows}_${queries}_${keys}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(int* __restrict__ queries, int* __restrict__ keys) {
  int row = blockIdx.x * 256 + threadIdx.x;
  if (row < ${rows}) { queries[row] = ${queries}; keys[row] = ${keys}; }
}`,
    ...lines(rows),
  };
}

/** Statistics f32 from [rows, queries, heads] to [rows, heads, queries], or back. */
export function statisticsKernel({ rows, queries, heads }: AttentionSizes, to: 'heads' | 'tokens'): Kernel {
  const name = `statistics_to_${to}_${rows}_${queries}_${heads}`;
  const count = rows * queries * heads;
  const [byHeads, byTokens] = [
    `(row * ${heads}LL + head) * ${queries}LL + token`,
    `(row * ${queries}LL + token) * ${heads}LL + head`,
  ];
  return {
    name,
    source: `extern "C" __global__ void ${name}(const float* __restrict__ x, float* __restrict__ y) {
  long long i = blockIdx.x * 256LL + threadIdx.x;
  if (i >= ${count}LL) return;
  long long head = i % ${heads}, token = (i / ${heads}) % ${queries}, row = i / ${heads * queries}LL;
  y[${to === 'heads' ? byHeads : byTokens}] = x[${to === 'heads' ? byTokens : byHeads}];
}`,
    ...lines(count),
  };
}
