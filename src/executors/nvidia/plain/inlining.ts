import { TensorMap } from '../../../tensor/rewrite.ts';
import { elementCount } from '../../../tensor/shape.ts';
import { type Graph, type Node, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import { isIndexOperation, isPointwise, resultOf } from './expression.ts';

/** Operations in one inlined expression: beyond the first, it is not repeated; beyond the second, it is cut. */
const mostRepeated = 32;
const mostInlined = 200;

/**
 * Decides which results are computed inside the kernels that use them: those with one use, and those that several
 * kernels compute for no more memory traffic than reading them would be, being made from a single tensor of their size.
 */
export function chooseInlined(graph: Graph, takes: (node: Node) => boolean): (tensor: Tensor) => boolean {
  const uses = countUses(graph, takes);
  const inlined = new TensorMap<Inlined>();
  for (const node of graph.nodes) {
    const count = uses.get(node);
    if (count === undefined) continue;
    const inside = combine(node, inlined);
    const isFree = inside.sources.size <= 1 && inside.weight <= mostRepeated;
    if (inside.weight <= mostInlined && (count === 1 || isFree)) inlined.set(resultOf(node), inside);
  }
  return (tensor) => inlined.has(tensor);
}

/** What an inlined expression takes. */
interface Inlined {
  /** Tensors in memory that it reads, small ones aside. */
  readonly sources: ReadonlySet<string>;
  /** Operations. */
  readonly weight: number;
}

function combine(node: Node, inlined: TensorMap<Inlined>): Inlined {
  const sources = new Set<string>();
  const size = elementCount(resultOf(node).shape);
  let weight = 1;
  for (const operand of operandsOf(node)) {
    const inside = inlined.get(operand);
    weight += inside?.weight ?? 0;
    for (const source of inside?.sources ?? []) sources.add(source);
    if (inside === undefined && 4 * elementCount(operand.shape) > size)
      sources.add(`${operand.node.id}.${operand.index}`);
  }
  return { sources, weight };
}

/** For each node that may be inlined everywhere it is used, how many kernels that is. */
function countUses(graph: Graph, takes: (node: Node) => boolean): Map<Node, number> {
  const users = new Map<Node, Node[]>();
  for (const node of graph.nodes) {
    for (const { node: operand } of operandsOf(node))
      users.set(operand, [...(users.get(operand) ?? []), node]);
  }
  const outputs = new Set(graph.outputs.map(({ node }) => node));
  const uses = new Map<Node, number>();
  for (const node of [...graph.nodes].reverse()) {
    if (takes(node) || !isPointwise(node) || outputs.has(node)) continue;
    const own = users.get(node) ?? [];
    const accepts = (user: Node) =>
      !takes(user) &&
      (user.op === 'sum' ||
        user.op === 'max' ||
        // A reshape of a tensor in memory costs nothing.
        (isPointwise(user) && (user.op !== 'reshape' || uses.has(user))));
    if (own.length === 0 || !own.every(accepts)) continue;
    // What only says where to read is part of each kernel that uses it.
    uses.set(
      node,
      own.reduce((sum, user) => sum + (isIndexOperation(user) ? (uses.get(user) ?? 1) : 1), 0),
    );
  }
  return uses;
}
