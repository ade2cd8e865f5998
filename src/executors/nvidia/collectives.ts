import { at, elementCount } from '../../tensor/shape.ts';
import { type Graph, type Node, type NodeOf, operandsOf, type Tensor } from '../../tensor/tensor.ts';

/** An operation between processes. */
export type CollectiveNode = NodeOf<'allReduce'> | NodeOf<'allGather'> | NodeOf<'reduceScatter'>;

/** Whether a node is an operation between processes. */
export function isCollective(node: Node): node is CollectiveNode {
  return node.op === 'allReduce' || node.op === 'allGather' || node.op === 'reduceScatter';
}

/**
 * Tells which sums over processes may be made where their operands are: nothing else reads those, not even under
 * another shape.
 */
export function inPlaceSums(graph: Graph): (node: CollectiveNode) => boolean {
  const uses = new Map<Node, number>();
  const use = ({ node }: Tensor) => uses.set(node, (uses.get(node) ?? 0) + 1);
  for (const node of graph.nodes) operandsOf(node).forEach(use);
  graph.outputs.forEach(use);
  const isOwn = ({ node }: Tensor): boolean => {
    if (node.op === 'input' || node.op === 'constant' || uses.get(node) !== 1) return false;
    return node.op !== 'reshape' || isOwn(node.operands[0]);
  };
  return (node) =>
    node.op === 'allReduce' && isOwn(node.operands[0]) && elementCount(at(node.results, 0).shape) > 0;
}
