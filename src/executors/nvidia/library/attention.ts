import { at, elementCount } from '../../../tensor/shape.ts';
import type { Node, NodeOf } from '../../../tensor/tensor.ts';
import type { Cudnn } from '../bindings/cudnn.ts';
import type { Device } from '../device.ts';
import type { Kernel } from '../kernel.ts';
import type { KernelCache, Launch } from '../kernel-cache.ts';
import {
  type AttentionGraph,
  attentionBackward,
  attentionForward,
  type BackwardNames,
  type ForwardNames,
} from './attention-graph.ts';
import { fromBf16Kernel, type PaddedRows, toBf16Kernel } from './conversion-kernels.ts';
import type { CudnnTensor } from './cudnn-graph.ts';
import { type LibraryCall, namedScratch } from './library-call.ts';
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
  readonly forwards: Map<string, AttentionGraph<ForwardNames>>;
  readonly backwards: Map<string, AttentionGraph<BackwardNames>>;
}

/** Whether cuDNN has fast engines for an attention: computed in bf16, heads of 16 to 128 channels. */
export function isCudnnAttention(node: Node): boolean {
  if (node.op !== 'attention' && node.op !== 'attentionGradient') return false;
  const [q, k] = node.operands;
  const sizes = sizesOf(node);
  const { headSize, queries, keys, scale, segments } = sizes;
  const fits =
    headSize % 16 === 0 && headSize <= 128 && queries > 1 && keys > 1 && scale > 0 && segments !== 0;
  const isKnown = q.dtype === 'f32' || (q.dtype === 'bf16' && hasRoom(sizes));
  return fits && isKnown && elementCount(q.shape) * elementCount(k.shape) > 0;
}

/** Whether an attention of f32 tensors may as well be given bf16: cuDNN reads and writes them where they are. */
export function isNarrowAttention(node: Node): boolean {
  if (node.op !== 'attention' && node.op !== 'attentionGradient') return false;
  return node.operands[0].dtype === 'f32' && isCudnnAttention(node) && hasRoom(sizesOf(node));
}

/** Whether tensors of bare tokens have the room that cuDNN asks for. */
function hasRoom(sizes: AttentionSizes): boolean {
  const { rows, queries, keys, heads, headSize } = sizes;
  return [queries, keys].every((tokens) => tokenElements(sizes, tokens) === rows * tokens * heads * headSize);
}

/** Attention in bfloat16 through cuDNN, with conversions from and to f32 around it unless tensors are bf16. */
export function lowerAttention(context: AttentionContext, node: NodeOf<'attention'>): LibraryCall {
  const { device, kernels, cudnn } = context;
  const sizes = sizesOf(node);
  const problem = problemOf(sizes, false);
  const planned = cached(context.forwards, problem, () => attentionForward(cudnn, problem));
  const { tensors, plan } = planned;
  const [queryBytes, keyBytes] = tokenBytes(sizes);
  const statisticBytes = statisticsBytes(sizes);
  const isNarrow = node.operands[0].dtype === 'bf16';
  const converted = (bytes: number) => (isNarrow ? 0 : bytes);
  const scratch = namedScratch({
    q: converted(queryBytes),
    k: converted(keyBytes),
    v: converted(keyBytes),
    y: converted(queryBytes),
    statistics: sizes.segments === undefined ? 0 : statisticBytes,
    workspace: plan.workspaceBytes,
    ...indexSizes(sizes),
  });
  const convert = conversions(sizes);
  const toHeads = statisticsKernel(sizes, 'heads');
  return {
    scratch: scratch.sizes,
    kernels: [...(isNarrow ? [] : convert.all), ...indexKernels(sizes), toHeads],
    bind: (addresses) => {
      const [q, k, v, segments] = addresses.inputs as [bigint, bigint, bigint, bigint?];
      const [y, logSum] = addresses.outputs as [bigint, bigint];
      const scratched = scratch.addresses(addresses);
      const own = isNarrow ? { ...scratched, q, k, v, y } : scratched;
      const isPacked = segments !== undefined;
      const statistics = isPacked ? own.statistics : logSum;
      const run = plan.bind(
        [
          [tensors.q, own.q],
          [tensors.k, own.k],
          [tensors.v, own.v],
          [tensors.y, own.y],
          [tensors.statistics, statistics],
          ...indexBindings(planned, own),
        ],
        own.workspace,
      );
      return [
        ...bindIndices(kernels, sizes, problem.hasLengths, segments, own),
        ...(isNarrow
          ? []
          : [
              kernels.bind(convert.query, [q, own.q]),
              kernels.bind(convert.key, [k, own.k]),
              kernels.bind(convert.key, [v, own.v]),
            ]),
        // Tokens in no segment are not written.
        ...launchIf(isPacked, () => device.clear(own.y, queryBytes)),
        ...launchIf(isPacked, () => device.clear(statistics, statisticBytes)),
        run,
        ...(isNarrow ? [] : [kernels.bind(convert.queryBack, [own.y, y])]),
        ...(isPacked ? [kernels.bind(toHeads, [statistics, logSum])] : []),
      ];
    },
  };
}

/** Gradients of attention in bfloat16 through cuDNN, with conversions around it as in {@link lowerAttention}. */
export function lowerAttentionGradient(
  context: AttentionContext,
  node: NodeOf<'attentionGradient'>,
): LibraryCall {
  const { device, kernels, cudnn } = context;
  const sizes = sizesOf(node);
  const problem = problemOf(sizes, true);
  const planned = cached(context.backwards, problem, () => attentionBackward(cudnn, problem));
  const { tensors, plan } = planned;
  const [queryBytes, keyBytes] = tokenBytes(sizes);
  const statisticBytes = statisticsBytes(sizes);
  const isNarrow = node.operands[0].dtype === 'bf16';
  const converted = (bytes: number) => (isNarrow ? 0 : bytes);
  const scratch = namedScratch({
    q: converted(queryBytes),
    k: converted(keyBytes),
    v: converted(keyBytes),
    y: converted(queryBytes),
    dy: converted(queryBytes),
    dq: converted(queryBytes),
    dk: converted(keyBytes),
    dv: converted(keyBytes),
    dqSum: 2 * queryBytes,
    total: statisticBytes,
    statistics: sizes.segments === undefined ? 0 : statisticBytes,
    workspace: plan.workspaceBytes,
    ...indexSizes(sizes),
  });
  const convert = conversions(sizes);
  const toTokens = statisticsKernel(sizes, 'tokens');
  return {
    scratch: scratch.sizes,
    kernels: [...(isNarrow ? [] : convert.all), ...indexKernels(sizes), toTokens],
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
      const scratched = scratch.addresses(addresses);
      const own = isNarrow ? { ...scratched, q, k, v, y, dy, dq, dk, dv } : scratched;
      const isPacked = segments !== undefined;
      const run = plan.bind(
        [
          ...(['q', 'k', 'v', 'y', 'dy', 'dq', 'dk', 'dv', 'dqSum', 'total'] as const).map(
            (name) => [tensors[name], own[name]] as const,
          ),
          [tensors.statistics, isPacked ? own.statistics : logSum],
          ...indexBindings(planned, own),
        ],
        own.workspace,
      );
      const clear = (address: bigint, bytes: number) => () => device.clear(address, bytes);
      return [
        ...bindIndices(kernels, sizes, problem.hasLengths, segments, own),
        ...(isNarrow
          ? []
          : ([
              [convert.query, q, own.q],
              [convert.key, k, own.k],
              [convert.key, v, own.v],
              [convert.query, y, own.y],
              [convert.query, dy, own.dy],
            ] as const)
        ).map(([kernel, from, to]) => kernels.bind(kernel, [from, to])),
        ...(isPacked
          ? [
              kernels.bind(toTokens, [logSum, own.statistics]),
              clear(own.dq, queryBytes),
              clear(own.dk, keyBytes),
              clear(own.dv, keyBytes),
              // Engines before cuDNN 9.18 read it where no segment is.
              clear(own.workspace, plan.workspaceBytes),
            ]
          : []),
        run,
        ...(isNarrow
          ? []
          : [
              kernels.bind(convert.queryBack, [own.dq, dq]),
              kernels.bind(convert.keyBack, [own.dk, dk]),
              kernels.bind(convert.keyBack, [own.dv, dv]),
            ]),
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

function sizesOf(node: NodeOf<'attention' | 'attentionGradient'>): AttentionSizes {
  const [q, k] = node.operands;
  const segments = node.op === 'attention' ? node.operands[3] : node.operands[6];
  return {
    rows: at(q.shape, 0),
    queries: at(q.shape, 1),
    keys: at(k.shape, 1),
    heads: at(q.shape, 2),
    headSize: at(q.shape, 3),
    segments: segments === undefined ? undefined : at(segments.shape, 1) - 1,
    scale: node.attributes.scale,
  };
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

function indexKernels(sizes: AttentionSizes): Kernel[] {
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

function conversions(sizes: AttentionSizes) {
  const { rows, queries, keys, heads, headSize } = sizes;
  const dense = (tokens: number): PaddedRows => {
    const [count, channels] = [rows * tokens, heads * headSize];
    return { rows: count, channels, paddedRows: count, paddedChannels: channels };
  };
  const [query, key] = [toBf16Kernel(dense(queries)), toBf16Kernel(dense(keys))];
  const [queryBack, keyBack] = [fromBf16Kernel(dense(queries)), fromBf16Kernel(dense(keys))];
  return { query, key, queryBack, keyBack, all: [query, key, queryBack, keyBack] };
}

function launchIf(condition: boolean, launch: Launch): Launch[] {
  return condition ? [launch] : [];
}

function cached<Value>(known: Map<string, Value>, problem: object, make: () => Value): Value {
  const key = JSON.stringify(problem);
  const value = known.get(key) ?? make();
  known.set(key, value);
  return value;
}
