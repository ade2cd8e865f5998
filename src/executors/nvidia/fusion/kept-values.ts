import { elementCount } from '../../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Op } from '../../../tensor/vocabulary.ts';
import type { RowSpace } from './row-writer.ts';

/** Operations that take tens of instructions. */
const costly: readonly Op[] = ['exp', 'log', 'sin', 'cos', 'tanh', 'sigmoid', 'gelu', 'silu'];

/** What a kernel computes in its walks over a row. */
export interface Walks {
  readonly space: RowSpace;
  /** Walk in which a tensor is known first. */
  readonly level: (tensor: Tensor) => number;
  /** Whether a tensor is computed in the kernel and not read from memory. */
  readonly isComputed: (tensor: Tensor) => boolean;
  /** What each walk computes for each element. */
  readonly wanted: readonly (readonly Tensor[])[];
}

/**
 * Values of elements that one walk computes and a later one needs again, by the number of the earlier: those that are dear to
 * compute, such as gelu before its row is scaled by its largest value, are better kept in registers.
 */
export function keptValues({ space, level, isComputed, wanted }: Walks): readonly (readonly Node[])[] {
  const below = (tensor: Tensor): readonly Tensor[] => (isComputed(tensor) ? operandsOf(tensor.node) : []);
  const known = new Map<Node, boolean>();
  const isCostly = (tensor: Tensor): boolean => {
    const { node } = tensor;
    const is =
      known.get(node) ?? (isComputed(tensor) && (costly.includes(node.op) || below(tensor).some(isCostly)));
    known.set(node, is);
    return is;
  };
  const isWide = ({ shape }: Tensor) => elementCount(shape) === space.rows * space.length;
  const computed = wanted.map((tensors) => reached(tensors, below));
  const kept = wanted.map(() => new Set<Node>());
  const keepOf = (tensor: Tensor, walk: number, seen: Set<Node>): void => {
    if (seen.has(tensor.node)) return;
    seen.add(tensor.node);
    const first = level(tensor);
    if (first < walk && isWide(tensor) && isCostly(tensor) && computed[first]?.has(tensor.node))
      kept[first]?.add(tensor.node);
    else for (const operand of below(tensor)) keepOf(operand, walk, seen);
  };
  wanted.forEach((tensors, walk) => {
    const seen = new Set<Node>();
    for (const tensor of tensors) keepOf(tensor, walk, seen);
  });
  return kept.map((nodes) => [...nodes]);
}

function reached(
  tensors: readonly Tensor[],
  below: (tensor: Tensor) => readonly Tensor[],
): ReadonlySet<Node> {
  const found = new Set<Node>();
  const pending = [...tensors];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (found.has(next.node)) continue;
    found.add(next.node);
    pending.push(...below(next));
  }
  return found;
}
