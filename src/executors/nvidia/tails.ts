import { at, elementCount } from '../../tensor/shape.ts';
import { type Graph, type Node, type NodeOf, resultsOf, type Tensor, usersOf } from '../../tensor/tensor.ts';
import { cutOf } from './cuts.ts';
import { ownStorage, type Storage } from './storage.ts';

/**
 * What follows a matrix product and cuBLASLt can do to the sums before it writes them: a bias, then perhaps a gelu. Both are
 * nodes of the graph as any other; a tail says that one call computes them.
 */
export interface Tail {
  readonly product: NodeOf<'matmul'>;
  /** One number for each column of the product: an input of the graph, perhaps in another storage. */
  readonly bias: Tensor;
  /** The product with its bias. */
  readonly sum: Tensor;
  /** The gelu of the sum, where the call makes it too. */
  readonly gelu: Tensor | undefined;
  /** Whether the sum is written beside its gelu, since others read it: gradients do. */
  readonly keepsSum: boolean;
  /** How much of what it makes a kernel would write otherwise: all, or the part that attention reads where it lies. */
  readonly share: number;
}

/** What a tail's call makes, that which matters most first. */
export function resultsOfTail({ sum, gelu, keepsSum }: Tail): readonly Tensor[] {
  if (gelu === undefined) return [sum];
  return keepsSum ? [gelu, sum] : [gelu];
}

/** The nodes that a tail's call computes. */
export function nodesOfTail({ product, sum, gelu }: Tail): readonly Node[] {
  return [product, sum.node, ...(gelu === undefined ? [] : [gelu.node])];
}

/**
 * The tails of a graph's products whose last result has to be in memory, since a library reads it, or a {@link Cut} of it, or it
 * is an output: there a kernel would have nothing to do but add and write. What kernels read they compute from the bare
 * product, which is no more to read.
 * @param takes whether a library computes a node.
 */
export function tailsOf(
  graph: Graph,
  takes: (node: Node) => boolean,
  storage: Storage = ownStorage,
): readonly Tail[] {
  const users = usersOf(graph.nodes);
  const shares = cutShares(graph, takes, storage);
  const outputs = new Set(graph.outputs.map(({ node }) => node));
  const isInMemory = (node: Node): boolean =>
    outputs.has(node) ||
    (users.get(node) ?? []).some((user) => takes(user) || (user.op === 'reshape' && isInMemory(user)));
  return graph.nodes.flatMap((product): readonly Tail[] => {
    if (product.op !== 'matmul' || !takes(product) || outputs.has(product)) return [];
    const [user, ...others] = users.get(product) ?? [];
    const bias = others.length === 0 && user?.op === 'add' ? biasOf(user, product) : undefined;
    if (user === undefined || bias === undefined) return [];
    const sum = at(user.results, 0);
    const readers = users.get(user) ?? [];
    const gelu = readers.find((reader) => reader.op === 'gelu' && isInMemory(reader));
    if (gelu === undefined) {
      const share = isInMemory(user) ? 1 : shares.get(user);
      return share === undefined ? [] : [{ product, bias, sum, gelu, keepsSum: false, share }];
    }
    const keepsSum = readers.length > 1 || outputs.has(user);
    return [{ product, bias, sum, gelu: at(resultsOf(gelu), 0), keepsSum, share: 1 }];
  });
}

/** How much of what nodes make attention reads where it lies. */
function cutShares(
  graph: Graph,
  takes: (node: Node) => boolean,
  storage: Storage,
): ReadonlyMap<Node, number> {
  const shares = new Map<Node, number>();
  for (const node of graph.nodes) {
    const cut = takes(node) ? cutOf(node, storage) : undefined;
    if (cut !== undefined) shares.set(cut.whole.node, cut.width / cut.step);
  }
  return shares;
}

/** What a sum adds to a product, if it is a bias. */
function biasOf(sum: NodeOf<'add'>, product: NodeOf<'matmul'>): Tensor | undefined {
  const { shape } = at(product.results, 0);
  const columns = at(shape, shape.length - 1);
  const [a, b] = sum.operands;
  const bias = a.node === product ? b : a;
  const isVector = elementCount(bias.shape) === columns && bias.shape.at(-1) === columns;
  const isWhole = at(sum.results, 0).shape.length === shape.length;
  return isVector && isWhole && isGiven(bias.node) ? bias : undefined;
}

/** Whether a node gives an input of the graph, as it is or under another shape or in another dtype. */
export function isGiven(node: Node): boolean {
  if (node.op === 'reshape' || node.op === 'cast') return isGiven(node.operands[0].node);
  return node.op === 'input';
}
