import { at, elementCount } from '../../../tensor/shape.ts';
import type { Node, NodeOf, Tensor } from '../../../tensor/tensor.ts';
import { resultsOf } from '../../../tensor/tensor.ts';
import { isGiven } from '../tails.ts';

/**
 * Rows, and keys of attention, from which on a product gains from f8e4m3: with fewer, scaling its weights takes as long as
 * multiplying by them saves.
 */
const fewestRows = 1024;

/** Narrowest layer that is computed in f8e4m3: sums of fewer products even out too little of their errors. */
const narrowest = 256;

/** cuBLASLt takes f8e4m3 in lines of 16 bytes. */
const lineElements = 16;

/** Head sizes for which cuDNN has engines that multiply f8e4m3. */
const headSizes = [64, 128];

/**
 * Whether the precision `fp8` has a node multiply f8e4m3: a linear layer, x w^T with w [N, K] given from outside, or
 * attention over whole rows whose log-sums nobody reads, both large enough to gain from it.
 * @param isRead whether anything reads a tensor.
 */
export function isForFp8(node: Node, isRead: (tensor: Tensor) => boolean): boolean {
  if (node.op === 'matmul') return isLargeLinear(node);
  if (node.op !== 'attention' || node.operands[3] !== undefined) return false;
  const [q, k] = node.operands;
  if (q.dtype !== 'f32' || elementCount(q.shape) === 0) return false;
  const sizes = [at(q.shape, 1), at(k.shape, 1)];
  const isLarge = sizes.every((size) => size >= fewestRows) && headSizes.includes(at(q.shape, 3));
  return isLarge && !isRead(at(resultsOf(node), 1));
}

function isLargeLinear({
  operands: [x, w],
  attributes: { transposeA, transposeB },
}: NodeOf<'matmul'>): boolean {
  if (transposeA || !transposeB || w.rank !== 2 || x.dtype !== 'f32' || !isGiven(w.node)) return false;
  const [outputs, inputs] = [at(w.shape, 0), at(w.shape, 1)];
  const isWide = [outputs, inputs].every((size) => size >= narrowest && size % lineElements === 0);
  return isWide && elementCount(x.shape) >= fewestRows * inputs;
}
