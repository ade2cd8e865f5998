import { at, elementCount } from '../../../tensor/shape.ts';
import { type Node, type NodeOf, resultsOf, type Tensor } from '../../../tensor/tensor.ts';
import { type Cut, valuesOperand } from '../cuts.ts';
import type { Storage } from '../storage.ts';
import { type AttentionContext, forwardCall, gradientCall } from './attention.ts';
import { forwardByKeys } from './attention-by-keys.ts';
import { gradientByQueries } from './attention-by-queries.ts';
import type { LibraryCall } from './library-call.ts';
import type { AttentionSizes } from './token-layout.ts';

/** Whether cuDNN has fast engines for an attention: computed in bf16, heads of 16 to 128 channels. */
export function isCudnnAttention(node: Node): boolean {
  if (node.op !== 'attention' && node.op !== 'attentionGradient') return false;
  const [q, k] = node.operands;
  const { headSize, queries, keys, scale, segments } = sizesOf(node);
  const fits =
    headSize % 16 === 0 && headSize <= 128 && queries > 1 && keys > 1 && scale > 0 && segments !== 0;
  const isKnown = q.dtype === 'f32' || q.dtype === 'bf16';
  return fits && isKnown && elementCount(q.shape) * elementCount(k.shape) > 0;
}

/** Attention by cuDNN, in two runs where that is faster, its values perhaps cut out; {@link isCudnnAttention} given. */
export function lowerAttention(
  context: AttentionContext,
  node: NodeOf<'attention'>,
  storage: Storage,
  cut?: Cut,
): LibraryCall {
  const [q, k, v] = node.operands;
  const stored = { q: storage(q), k: storage(k), v: storage(v), y: storage(at(resultsOf(node), 0)) };
  const sizes = sizesOf(node, cut);
  const late = context.splits.lateKeys(sizes);
  const call = late > 0 ? forwardByKeys(context, sizes, stored, late) : forwardCall(context, sizes, stored);
  return readingCut(call, cut);
}

/** Gradients of attention by cuDNN, in parts where that is faster, its values perhaps cut out. */
export function lowerAttentionGradient(
  context: AttentionContext,
  node: NodeOf<'attentionGradient'>,
  storage: Storage,
  cut?: Cut,
): LibraryCall {
  const [q, k, v, y, , dy] = node.operands;
  const [dq, dk, dv] = resultsOf(node) as [Tensor, Tensor, Tensor];
  const stored = {
    q: storage(q),
    k: storage(k),
    v: storage(v),
    y: storage(y),
    dy: storage(dy),
    dq: storage(dq),
    dk: storage(dk),
    dv: storage(dv),
  };
  const sizes = sizesOf(node, cut);
  const parts = context.splits.queryParts(sizes);
  const call =
    parts > 1 ? gradientByQueries(context, sizes, stored, parts) : gradientCall(context, sizes, stored);
  return readingCut(call, cut);
}

/** A call that is given what its values are cut out of, in bf16, where it has them otherwise. */
function readingCut(call: LibraryCall, cut: Cut | undefined): LibraryCall {
  if (cut === undefined) return call;
  const start = BigInt(2 * cut.start);
  return {
    ...call,
    bind: ({ inputs, ...rest }) =>
      call.bind({ ...rest, inputs: inputs.with(valuesOperand, at(inputs, valuesOperand) + start) }),
  };
}

function sizesOf(node: NodeOf<'attention' | 'attentionGradient'>, cut?: Cut): AttentionSizes {
  const [q, k] = node.operands;
  const segments = node.op === 'attention' ? node.operands[3] : node.operands[6];
  return {
    rows: at(q.shape, 0),
    queries: at(q.shape, 1),
    keys: at(k.shape, 1),
    heads: at(q.shape, 2),
    headSize: at(q.shape, 3),
    ...(cut && { valueStep: cut.step }),
    segments: segments === undefined ? undefined : at(segments.shape, 1) - 1,
    scale: node.attributes.scale,
  };
}
