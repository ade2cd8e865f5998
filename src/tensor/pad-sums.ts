import { at, type Shape, sameShape } from './shape.ts';
import type { Node, NodeOf, Tensor } from './tensor.ts';

/** Tensors that a sum of paddings puts end to end: it equals their concatenation. */
export interface JoinedPads {
  readonly parts: readonly Tensor[];
  readonly axis: number;
  /** The sums and paddings that the concatenation stands for, beneath the sum itself. */
  readonly nodes: readonly Node[];
}

/** Paddings that a tensor is the sum of, and all nodes of that sum. */
interface Terms {
  readonly pads: readonly NodeOf<'pad'>[];
  readonly nodes: readonly Node[];
}

/**
 * Finds sums of tensors, each padded with zeros along one axis, whose insides together cover that axis once: what the
 * gradients of a tensor's slices add up to. Each node is looked at once, however many sums it is part of.
 */
export class PadSums {
  private readonly known = new Map<Node, Terms | undefined>();
  private readonly mayJoin: (term: Tensor) => boolean;

  /** @param mayJoin whether a term of a sum may be taken apart; default any. */
  constructor(mayJoin: (term: Tensor) => boolean = () => true) {
    this.mayJoin = mayJoin;
  }

  /** What the sum of two tensors of the same shape joins; undefined when it is no such sum. */
  find([a, b]: readonly Tensor[]): JoinedPads | undefined {
    if (a === undefined || b === undefined || !sameShape(a.shape, b.shape)) return undefined;
    const terms = this.sumOf(a, b);
    return terms && joined(terms, a.shape);
  }

  private sumOf(a: Tensor, b: Tensor): Terms | undefined {
    const [first, second] = [this.termsOf(a), this.termsOf(b)];
    if (first === undefined || second === undefined) return undefined;
    const pads = [...first.pads, ...second.pads];
    // More than there are places overlap. It also bounds sums of which one term is many times part.
    if (pads.length > Math.max(...a.shape)) return undefined;
    return { pads, nodes: [...first.nodes, ...second.nodes] };
  }

  private termsOf(tensor: Tensor): Terms | undefined {
    if (!this.mayJoin(tensor)) return undefined;
    const { node } = tensor;
    if (node.op === 'pad') return { pads: [node], nodes: [node] };
    if (node.op !== 'add') return undefined;
    if (!this.known.has(node)) {
      const beneath = this.sumOf(...node.operands);
      this.known.set(node, beneath && { pads: beneath.pads, nodes: [node, ...beneath.nodes] });
    }
    return this.known.get(node);
  }
}

function joined({ pads, nodes }: Terms, shape: Shape): JoinedPads | undefined {
  const axis = pads.map(paddedAxis).reduce((a, b) => (a === b ? a : undefined));
  if (axis === undefined) return undefined;
  const sorted = [...pads].sort((a, b) => at(a.attributes.before, axis) - at(b.attributes.before, axis));
  let end = 0;
  for (const { attributes, operands, results } of sorted) {
    const fits = sameShape(at(results, 0).shape, shape) && at(attributes.before, axis) === end;
    if (!fits) return undefined;
    end += at(operands[0].shape, axis);
  }
  return end === at(shape, axis)
    ? { parts: sorted.map(({ operands }) => operands[0]), axis, nodes }
    : undefined;
}

/** The axis that is padded, when it is one. */
function paddedAxis({ attributes: { before, after } }: NodeOf<'pad'>): number | undefined {
  const axes = before.flatMap((size, axis) => (size > 0 || at(after, axis) > 0 ? [axis] : []));
  return axes.length === 1 ? axes[0] : undefined;
}
