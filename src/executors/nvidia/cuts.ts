import { at, elementCount } from '../../tensor/shape.ts';
import type { Node, NodeOf, Tensor } from '../../tensor/tensor.ts';
import type { Storage } from './storage.ts';
import { reshaped } from './views.ts';

/**
 * Values that attention, or its gradient, reads where they lie beside other channels of their tokens, such as in a joint
 * product of queries, keys and values: no kernel has to cut them out.
 */
export interface Cut {
  /** What lies in memory, of no other tensor's shape. */
  readonly whole: Tensor;
  /** Elements before a token's values, of its values, and from one token to the next. */
  readonly start: number;
  readonly width: number;
  readonly step: number;
}

/** Which operand of attention and of its gradient the values are. */
export const valuesOperand = 2;

/** cuDNN reads lines of 16 bytes. */
const lineElements = 8;

/**
 * The cut that a node's values are in a graph, if they are stored in bf16, as all that they are cut out of. Packed tokens have
 * offsets in elements that queries and values share, so theirs are none.
 */
export function cutOf(node: Node, storage: Storage): Cut | undefined {
  if (!isOverRows(node)) return undefined;
  const v = node.operands[valuesOperand];
  const slice = reshaped(v).node;
  // What is read as queries or keys too is needed by itself.
  const isOnce = node.operands.filter((operand) => operand && reshaped(operand).node === slice).length === 1;
  if (slice.op !== 'slice' || !isOnce) return undefined;
  const [x] = slice.operands;
  const place = placeIn(slice, at(v.shape, 0) * at(v.shape, 1));
  const isNarrow = [x, v].every((tensor) => storage(tensor) === 'bf16');
  return place && isNarrow ? { whole: reshaped(x), ...place } : undefined;
}

function isOverRows(node: Node): node is NodeOf<'attention'> | NodeOf<'attentionGradient'> {
  if (node.op === 'attention') return node.operands[3] === undefined;
  return node.op === 'attentionGradient' && node.operands[6] === undefined;
}

/** Where a slice of each token's channels is, if it is that. */
function placeIn(
  { operands: [x], attributes: { starts, ends } }: NodeOf<'slice'>,
  tokens: number,
): Omit<Cut, 'whole'> | undefined {
  const [axis, ...others] = x.shape.flatMap((size, i) => (at(ends, i) - at(starts, i) < size ? [i] : []));
  if (axis === undefined || others.length > 0 || elementCount(x.shape.slice(0, axis)) !== tokens)
    return undefined;
  const inner = elementCount(x.shape.slice(axis + 1));
  const [start, end, step] = [at(starts, axis), at(ends, axis), at(x.shape, axis)].map((i) => i * inner) as [
    number,
    number,
    number,
  ];
  const isAligned = start % lineElements === 0 && step % lineElements === 0;
  return isAligned ? { start, width: end - start, step } : undefined;
}
