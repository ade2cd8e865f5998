import type { DType } from '../../../tensor/dtype.ts';
import type { Cudnn } from '../bindings/cudnn.ts';
import type { Device } from '../device.ts';
import type { Kernel } from '../kernel.ts';
import type { KernelCache, Launch } from '../kernel-cache.ts';
import { clearKernel } from '../plain/clear.ts';
import {
  type AttentionGraph,
  attentionBackward,
  attentionForward,
  type BackwardNames,
  type ForwardNames,
} from './attention-graph.ts';
import type { AttentionSplits } from './attention-splits.ts';
import type { CudnnTensor } from './cudnn-graph.ts';
import type { KeptPlans } from './kept-plans.ts';
import { type LibraryCall, namedScratch } from './library-call.ts';
import { TokenBorders, type TokenName } from './token-borders.ts';
import {
  type AttentionSizes,
  fullLengthsKernel,
  indexBytes,
  problemOf,
  segmentKernel,
  statisticsKernel,
  tokenElements,
} from './token-layout.ts';

/** What lowering an attention needs; graphs are kept by their problem. */
export interface AttentionContext {
  readonly device: Device;
  readonly kernels: KernelCache;
  readonly cudnn: Cudnn;
  readonly kept: KeptPlans;
  readonly forwards: Map<string, AttentionGraph<ForwardNames>>;
  readonly backwards: Map<string, AttentionGraph<BackwardNames>>;
  readonly splits: AttentionSplits;
}

/** How the tensors of tokens lie in memory: f32 or bf16. */
export type StoredTokens<Names extends TokenName> = Readonly<Record<Names, DType>>;

/**
 * Attention in bfloat16 through cuDNN; what is stored in f32 is converted on its way there and back. Inputs: q, k, v and,
 * if the sizes have any, segments. Outputs: y, log-sums.
 */
export function forwardCall(
  context: AttentionContext,
  sizes: AttentionSizes,
  stored: StoredTokens<'q' | 'k' | 'v' | 'y'>,
): LibraryCall {
  const { kernels, cudnn, kept } = context;
  const problem = problemOf(sizes, false);
  const planned = cached(context.forwards, problem, () => attentionForward(cudnn, kept, problem));
  const { tensors, plan } = planned;
  const statisticBytes = statisticsBytes(sizes);
  const borders = new TokenBorders(context, sizes, stored);
  const scratch = namedScratch({
    ...borders.scratch,
    statistics: sizes.segments === undefined ? 0 : statisticBytes,
    workspace: plan.workspaceBytes,
    ...indexSizes(sizes),
  });
  const toHeads = statisticsKernel(sizes, 'heads');
  const zeros = clearKernel([tokenBytes(sizes)[0], statisticBytes]);
  return {
    scratch: scratch.sizes,
    kernels: [
      ...borders.conversions,
      ...indexKernels(sizes, problem.hasLengths),
      ...(sizes.segments === undefined ? [] : [zeros, toHeads]),
    ],
    bind: (addresses) => {
      const [q, k, v, segments] = addresses.inputs as [bigint, bigint, bigint, bigint?];
      const [y, logSum] = addresses.outputs as [bigint, bigint];
      const own = scratch.addresses(addresses);
      const places = borders.places({ q, k, v, y }, own);
      const isPacked = segments !== undefined;
      const statistics = isPacked ? own.statistics : logSum;
      const run = plan.bind(
        [
          ...(['q', 'k', 'v', 'y'] as const).map((name) => [tensors[name], places[name]] as const),
          [tensors.statistics, statistics],
          ...indexBindings(planned, own),
        ],
        own.workspace,
      );
      return [
        ...bindIndices(kernels, sizes, problem.hasLengths, segments, own),
        ...borders.into('q', q, own.q),
        ...borders.into('k', k, own.k),
        ...borders.into('v', v, own.v),
        // Tokens in no segment are not written.
        ...(isPacked ? [kernels.bind(zeros, [places.y, statistics])] : []),
        run,
        ...borders.back('y', y, own.y),
        ...(isPacked ? [kernels.bind(toHeads, [statistics, logSum])] : []),
      ];
    },
  };
}

/**
 * Gradients of attention in bfloat16 through cuDNN, with conversions around it as in {@link forwardCall}. Inputs: q, k, v,
 * y, log-sums, dy and, if the sizes have any, segments. Outputs: dq, dk, dv.
 */
export function gradientCall(
  context: AttentionContext,
  sizes: AttentionSizes,
  stored: StoredTokens<TokenName>,
): LibraryCall {
  const { kernels, cudnn, kept } = context;
  const problem = problemOf(sizes, true);
  const planned = cached(context.backwards, problem, () => attentionBackward(cudnn, kept, problem));
  const { tensors, plan } = planned;
  const [queryBytes, keyBytes] = tokenBytes(sizes);
  const statisticBytes = statisticsBytes(sizes);
  const borders = new TokenBorders(context, sizes, stored);
  const scratch = namedScratch({
    ...borders.scratch,
    dqSum: 2 * queryBytes,
    total: statisticBytes,
    statistics: sizes.segments === undefined ? 0 : statisticBytes,
    workspace: plan.workspaceBytes,
    ...indexSizes(sizes),
  });
  const toTokens = statisticsKernel(sizes, 'tokens');
  // Tokens in no segment are not written. Engines before cuDNN 9.18 read the workspace there.
  const zeros = clearKernel([queryBytes, keyBytes, keyBytes, plan.workspaceBytes]);
  return {
    scratch: scratch.sizes,
    kernels: [
      ...borders.conversions,
      ...indexKernels(sizes, problem.hasLengths),
      ...(sizes.segments === undefined ? [] : [zeros, toTokens]),
    ],
    bind: (addresses) => {
      const [q, k, v, y, logSum, dy, segments] = addresses.inputs as [
        bigint,
        bigint,
        bigint,
        bigint,
        bigint,
        bigint,
        bigint?,
      ];
      const [dq, dk, dv] = addresses.outputs as [bigint, bigint, bigint];
      const own = scratch.addresses(addresses);
      const given = { q, k, v, y, dy, dq, dk, dv };
      const places = borders.places(given, own);
      const isPacked = segments !== undefined;
      const run = plan.bind(
        [
          ...(['q', 'k', 'v', 'y', 'dy', 'dq', 'dk', 'dv'] as const).map(
            (name) => [tensors[name], places[name]] as const,
          ),
          [tensors.dqSum, own.dqSum],
          [tensors.total, own.total],
          [tensors.statistics, isPacked ? own.statistics : logSum],
          ...indexBindings(planned, own),
        ],
        own.workspace,
      );
      return [
        ...bindIndices(kernels, sizes, problem.hasLengths, segments, own),
        ...(['q', 'k', 'v', 'y', 'dy'] as const).flatMap((name) =>
          borders.into(name, given[name], own[name]),
        ),
        ...(isPacked
          ? [
              kernels.bind(toTokens, [logSum, own.statistics]),
              kernels.bind(zeros, [places.dq, places.dk, places.dv, own.workspace]),
            ]
          : []),
        run,
        ...(['dq', 'dk', 'dv'] as const).flatMap((name) => borders.back(name, given[name], own[name])),
      ];
    },
  };
}

interface IndexAddresses {
  readonly queryLengths: bigint;
  readonly keyLengths: bigint;
  readonly tokenOffsets: bigint;
  readonly statisticOffsets: bigint;
}

/** Bytes of queries and of keys in bf16. */
function tokenBytes(sizes: AttentionSizes): [queries: number, keys: number] {
  return [2 * tokenElements(sizes, sizes.queries), 2 * tokenElements(sizes, sizes.keys)];
}

function statisticsBytes(sizes: AttentionSizes): number {
  return (4 * tokenElements(sizes, sizes.queries)) / sizes.headSize;
}

function indexSizes(sizes: AttentionSizes): Record<keyof IndexAddresses, number> {
  const { lengths, offsets } = indexBytes(sizes);
  return { queryLengths: lengths, keyLengths: lengths, tokenOffsets: offsets, statisticOffsets: offsets };
}

function indexKernels(sizes: AttentionSizes, hasLengths: boolean): Kernel[] {
  if (!hasLengths) return [];
  return [sizes.segments === undefined ? fullLengthsKernel(sizes) : segmentKernel(sizes)];
}

/** Fills lengths and offsets, where the graph has them. */
function bindIndices(
  kernels: KernelCache,
  sizes: AttentionSizes,
  hasLengths: boolean,
  segments: bigint | undefined,
  own: IndexAddresses,
): Launch[] {
  if (segments !== undefined) {
    const { queryLengths, tokenOffsets, statisticOffsets } = own;
    return [kernels.bind(segmentKernel(sizes), [segments, queryLengths, tokenOffsets, statisticOffsets])];
  }
  return hasLengths ? [kernels.bind(fullLengthsKernel(sizes), [own.queryLengths, own.keyLengths])] : [];
}

function indexBindings(
  { lengths, offsets }: Pick<AttentionGraph<never>, 'lengths' | 'offsets'>,
  own: IndexAddresses,
): (readonly [CudnnTensor, bigint])[] {
  return [
    ...(lengths === undefined
      ? []
      : [
          [lengths.queries, own.queryLengths] as const,
          // Packed queries and keys are the same segments.
          [lengths.keys, offsets === undefined ? own.keyLengths : own.queryLengths] as const,
        ]),
    ...(offsets === undefined
      ? []
      : [[offsets.tokens, own.tokenOffsets] as const, [offsets.statistics, own.statisticOffsets] as const]),
  ];
}

function cached<Value>(known: Map<string, Value>, problem: object, make: () => Value): Value {
  const key = JSON.stringify(problem);
  const value = known.get(key) ?? make();
  known.set(key, value);
  return value;
}
