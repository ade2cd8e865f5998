import { concat } from '../../../tensor/functions.ts';
import { makeGraph } from '../../../tensor/graph.ts';
import { type JoinedPads, PadSums } from '../../../tensor/pad-sums.ts';
import { rewriteNodes } from '../../../tensor/rewrite.ts';
import { at, elementCount, sameShape } from '../../../tensor/shape.ts';
import {
  applyOne,
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../../tensor/tensor.ts';
import { isPointwise } from '../plain/expression.ts';
import { withLateUses } from './late-uses.ts';
import { longestRow } from './units.ts';

/**
 * A graph in the form in which most can be fused:
 *
 * - Norms and softmax are written as the sums that they are made of. A sum that the backward pass repeats is taken from
 *   the forward pass: a number for each row, from which the normalised row is computed where it is needed.
 * - Gradients of the slices of a tensor, each padded with zeros and added up, are joined end to end.
 * - The sum over rows of tensors joined along their rows is that of each.
 * - What can be computed again is not kept for gradients of weights: {@link withLateUses}.
 */
export function prepare(graph: Graph): Graph {
  const shared = new Shared();
  const padSums = new PadSums();
  const outputs = rewriteNodes(graph, (node, operands) => {
    const first = operands[0];
    if (first === undefined) return undefined;
    switch (node.op) {
      case 'layerNorm':
      case 'rmsNorm':
      case 'softmax':
        return isShortRow(first) ? [asSums(node, first, shared)] : undefined;
      case 'sum':
        return sumOf(node, first, shared);
      case 'slice':
        // The backward pass repeats the slices that the forward pass made.
        return [shared.same(applyOne('slice', [first], node.attributes))];
      case 'add':
        return joinedPads(padSums.find(operands)) ?? addedParts(operands);
      default:
        return undefined;
    }
  });
  return withLateUses(makeGraph(graph.name, graph.inputs, outputs, graph.outputNames));
}

function isShortRow({ shape, dtype }: Tensor): boolean {
  const length = at([1, ...shape], shape.length);
  return dtype === 'f32' && length > 1 && length <= longestRow && elementCount(shape) > 0;
}

function asSums(
  node: NodeOf<'layerNorm'> | NodeOf<'rmsNorm'> | NodeOf<'softmax'>,
  x: Tensor,
  shared: Shared,
): Tensor {
  const mean = (of: Tensor) => shared.same(of.sum([-1], true)).mul(1 / at(x.shape, x.rank - 1));
  if (node.op === 'softmax') {
    const powers = x.sub(x.max([-1], true)).exp();
    return powers.div(powers.sum([-1], true));
  }
  const centred = node.op === 'layerNorm' ? x.sub(mean(x)) : x;
  return centred.div(mean(centred.square()).add(node.attributes.epsilon).sqrt());
}

function sumOf({ attributes }: NodeOf<'sum'>, x: Tensor, shared: Shared): readonly Tensor[] {
  const { axes, keepDims } = attributes;
  if (x.node.op === 'concat') {
    const { axis } = x.node.attributes;
    // Parts that were rows of another length are summed as one.
    const isWhole = x.node.operands.every(({ node }) => node.op !== 'reshape');
    if (axes.length > 0 && !axes.includes(axis) && isWhole) {
      const kept = keepDims ? axis : axis - axes.filter((other) => other < axis).length;
      return [
        concat(
          x.node.operands.map((part) => part.sum(axes, keepDims)),
          kept,
        ),
      ];
    }
  }
  return [shared.same(x.sum(axes, keepDims))];
}

function joinedPads(found: JoinedPads | undefined): readonly Tensor[] | undefined {
  return found && [concat(found.parts, found.axis)];
}

/** The sum of two tensors whose parts are equally large: the sums of the parts, joined. */
function addedParts([a, b]: readonly Tensor[]): readonly Tensor[] | undefined {
  if (a?.node.op !== 'concat' || b?.node.op !== 'concat') return undefined;
  const { axis } = a.node.attributes;
  const others = b.node.operands;
  const fit =
    b.node.attributes.axis === axis &&
    a.node.operands.length === others.length &&
    a.node.operands.every((part, index) => sameShape(part.shape, at(others, index).shape));
  if (!fit) return undefined;
  return [
    concat(
      a.node.operands.map((part, index) => part.add(at(others, index))),
      axis,
    ),
  ];
}

/** Finds sums and slices that a graph computes more than once, by what they are computed from. */
class Shared {
  private readonly numbers = new Map<Node, number>();
  private readonly byKey = new Map<string, number>();
  private readonly first = new Map<number, Tensor>();

  /** The first tensor that is equal to this one. */
  same(tensor: Tensor): Tensor {
    const number = this.numberOf(tensor.node);
    const known = this.first.get(number);
    if (known === undefined) this.first.set(number, tensor);
    return known ?? tensor;
  }

  /** Equal for two nodes that compute the same. */
  private numberOf(node: Node): number {
    const known = this.numbers.get(node);
    if (known !== undefined) return known;
    const key = this.keyOf(node);
    const number = this.byKey.get(key) ?? this.byKey.size;
    this.byKey.set(key, number);
    this.numbers.set(node, number);
    return number;
  }

  private keyOf(node: Node): string {
    if (node.op === 'constant' && node.attributes.values.length === 1) {
      const { values, shape, dtype } = node.attributes;
      const value = at(values, 0);
      return `${Object.is(value, -0) ? '-0' : value} ${dtype} ${shape}`;
    }
    if (node.op !== 'sum' && !isPointwise(node)) return `#${node.id}`;
    const operands = operandsOf(node).map((operand) => `${this.numberOf(operand.node)}.${operand.index}`);
    return `${node.op} ${JSON.stringify(node.attributes)} ${operands} ${resultsOf(node)[0]?.dtype}`;
  }
}
