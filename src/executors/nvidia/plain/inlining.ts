import { at, elementCount } from '../../../tensor/shape.ts';
import { type Graph, type Node, operandsOf, type Tensor, usersOf } from '../../../tensor/tensor.ts';
import { isIndexOperation, isPointwise, resultOf } from './expression.ts';

/** Operations in one inlined expression: beyond the first, it is not repeated; beyond the second, it is cut. */
const mostRepeated = 32;
const mostInlined = 200;

/**
 * Decides which results are computed inside the kernels that use them: those with one use, and those that several
 * kernels compute for no more memory traffic than reading them would be.
 * @param takes whether a library computes a node.
 * @param isRead whether it needs an operand of one in memory. Default: all of those that it computes.
 */
export function chooseInlined(
  graph: Graph,
  takes: (node: Node) => boolean,
  isRead: (user: Node, operand: Node) => boolean = takes,
): Inlining {
  const uses = countUses(graph, takes, isRead);
  const outputs = new Set(graph.outputs.map(({ node }) => node));
  const inlined = new Map<Tensor, Inlined>();
  const repeated = new Map<Tensor, Inlined>();
  const inside = (tensor: Tensor) => inlined.get(tensor) ?? repeated.get(tensor);
  for (const node of graph.nodes) {
    const count = uses.get(node);
    if (takes(node) || !isPointwise(node) || outputs.has(node)) continue;
    const own = combine(node, inside);
    if (own.weight > mostInlined) continue;
    let read = 0;
    for (const { elements } of own.sources) read += elements;
    // An eighth more is as good as nothing: the numbers of rows beside the rows.
    const isFree = 8 * read <= 9 * elementCount(resultOf(node).shape) && own.weight <= mostRepeated;
    if (count === 1 || (count !== undefined && isFree)) inlined.set(resultOf(node), own);
    else if (isFree && !isIndexOperation(node)) repeated.set(resultOf(node), own);
  }
  return { isInlined: (tensor) => inlined.has(tensor), isRepeated: (tensor) => repeated.has(tensor) };
}

/** What {@link chooseInlined} decides. */
export interface Inlining {
  /** Computed inside every kernel that uses it, and nowhere in memory. */
  readonly isInlined: (tensor: Tensor) => boolean;
  /** In memory for those that need it there, but as well computed from its sources as read. */
  readonly isRepeated: (tensor: Tensor) => boolean;
}

interface Source {
  readonly tensor: Tensor;
  readonly elements: number;
}

/** What an inlined expression takes. */
interface Inlined {
  /** Tensors in memory that it reads, and how many of their elements. */
  readonly sources: readonly Source[];
  /** Operations. */
  readonly weight: number;
}

function combine(node: Node, inside: (tensor: Tensor) => Inlined | undefined): Inlined {
  const sources: Source[] = [];
  const size = elementCount(resultOf(node).shape);
  const read = (tensor: Tensor, most: number) => {
    const elements = Math.min(size, most);
    const known = sources.findIndex((source) => source.tensor === tensor);
    if (known < 0) sources.push({ tensor, elements });
    else if (elements > at(sources, known).elements) sources[known] = { tensor, elements };
  };
  let weight = 1;
  for (const operand of operandsOf(node)) {
    const own = inside(operand);
    weight += own?.weight ?? 0;
    // Of what a slice is cut from, only the slice is read.
    if (own === undefined) read(operand, elementCount(operand.shape));
    else for (const { tensor, elements } of own.sources) read(tensor, elements);
  }
  return { sources, weight };
}

/** For each node that may be inlined everywhere it is used, how many kernels that is. */
function countUses(
  graph: Graph,
  takes: (node: Node) => boolean,
  isRead: (user: Node, operand: Node) => boolean,
): Map<Node, number> {
  const users = usersOf(graph.nodes);
  const outputs = new Set(graph.outputs.map(({ node }) => node));
  const uses = new Map<Node, number>();
  for (const node of [...graph.nodes].reverse()) {
    if (takes(node) || !isPointwise(node) || outputs.has(node)) continue;
    const own = users.get(node) ?? [];
    const accepts = (user: Node) =>
      !isRead(user, node) &&
      (takes(user) ||
        user.op === 'sum' ||
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
