import { elementCount } from '../../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor, usersOf } from '../../../tensor/tensor.ts';
import { type Space, sameSpace, spacesOf } from './space.ts';

/** Nodes that become one fused operation, operands first. */
export interface Group {
  readonly space: Space;
  readonly nodes: readonly Node[];
}

/** What of a graph is fused. */
export interface Grouping {
  readonly groups: readonly Group[];
  /** Nodes and groups with a higher number never need one with a lower or the same number. */
  readonly distanceFromEnd: ReadonlyMap<Node, number>;
}

/** Operations that compute nothing: a group of only these is none. */
const idle = new Set(['broadcast', 'reshape']);

/**
 * Groups nodes that go through the same rows, as late in the graph as possible, so that what is cheap is computed where it
 * is read. A node's distance from the end counts the steps between it and the outputs that no group can take in; nodes
 * of a group have one distance, and a way that leaves a group and comes back would have to gain on it.
 * @param isFree whether a node may be fused.
 */
export function findGroups(
  nodes: readonly Node[],
  outputs: readonly Tensor[],
  isFree: (node: Node) => boolean,
): Grouping {
  const spaces = spacesOf(nodes, outputs, isFree);
  const users = usersOf(nodes);
  const joins = (a: Node, b: Node) => sameSpace(spaces.get(a), spaces.get(b));
  const distanceFromEnd = new Map<Node, number>();
  for (const node of [...nodes].reverse()) {
    const distances = (users.get(node) ?? []).map(
      (user) => (distanceFromEnd.get(user) ?? 0) + (joins(node, user) ? 0 : 1),
    );
    distanceFromEnd.set(node, Math.max(0, ...distances));
  }
  const together = (a: Node, b: Node) => joins(a, b) && distanceFromEnd.get(a) === distanceFromEnd.get(b);
  const groups = components(
    nodes.filter((node) => spaces.has(node)),
    together,
  ).map((members) => ({
    space: spaces.get(members[0] as Node) as Space,
    nodes: members,
  }));
  return { groups: groups.filter(({ nodes: all }) => all.some(({ op }) => !idle.has(op))), distanceFromEnd };
}

/** Nodes connected by operands, or by reading the same tensor, where both may be together. */
function components(nodes: readonly Node[], together: (a: Node, b: Node) => boolean): Node[][] {
  const parents = new Map<Node, Node>(nodes.map((node) => [node, node]));
  const root = (node: Node): Node => {
    let top = node;
    for (let next = parents.get(top); next !== undefined && next !== top; next = parents.get(top)) top = next;
    return top;
  };
  const join = (a: Node, b: Node) => {
    if (parents.has(a) && together(a, b)) parents.set(root(a), root(b));
  };
  const readers = new Map<Tensor, Node[]>();
  for (const node of nodes)
    for (const operand of operandsOf(node)) {
      join(operand.node, node);
      if (elementCount(operand.shape) === 1) continue;
      const others = readers.get(operand) ?? [];
      for (const other of others) join(other, node);
      readers.set(operand, [...others, node]);
    }
  const found = new Map<Node, Node[]>();
  for (const node of nodes) found.set(root(node), [...(found.get(root(node)) ?? []), node]);
  return [...found.values()];
}
