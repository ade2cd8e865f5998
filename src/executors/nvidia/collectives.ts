import { TensorMap } from '../../tensor/rewrite.ts';
import { at, elementCount } from '../../tensor/shape.ts';
import {
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../tensor/tensor.ts';
import type { Stage } from './kernel.ts';

/** An operation between processes. */
export type CollectiveNode = NodeOf<'allReduce'> | NodeOf<'allGather'> | NodeOf<'reduceScatter'>;

/** A stage, or collectives that run as one: the sums of all gradients are a single launch. */
export type ProgramStage = Stage | { readonly kind: 'collective'; readonly nodes: readonly CollectiveNode[] };

/** Whether a node is an operation between processes. */
export function isCollective(node: Node): node is CollectiveNode {
  return node.op === 'allReduce' || node.op === 'allGather' || node.op === 'reduceScatter';
}

/** Joins the collectives of a list of stages that follow each other and do not depend on each other. */
export function joinCollectives(stages: readonly Stage[]): readonly ProgramStage[] {
  const joined: ProgramStage[] = [];
  let pending: CollectiveNode[] = [];
  let made = new TensorMap<true>();
  const flush = () => {
    if (pending.length > 0) joined.push({ kind: 'collective', nodes: pending });
    pending = [];
    made = new TensorMap();
  };
  for (const stage of stages) {
    const node = stage.kind === 'library' && isCollective(stage.node) ? stage.node : undefined;
    const isApart = node !== undefined || stage.kind === 'view' || stage.kind === 'constant';
    if (!isApart || readsOf(stage).some((tensor) => made.has(tensor))) flush();
    if (node === undefined) joined.push(stage);
    else {
      pending.push(node);
      for (const result of resultsOf(node as Node)) made.set(result, true);
    }
  }
  flush();
  return joined;
}

function readsOf(stage: Stage): readonly Tensor[] {
  if (stage.kind === 'view') return [stage.input];
  return stage.kind === 'library' ? operandsOf(stage.node) : [];
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
