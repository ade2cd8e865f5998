import { at } from '../../tensor/shape.ts';
import type { Node, NodeOf } from '../../tensor/tensor.ts';
import type { ProcessGroup } from '../process-group.ts';
import { rounded, type Values } from './values.ts';

type CollectiveNode = NodeOf<'allReduce'> | NodeOf<'allGather'> | NodeOf<'reduceScatter'>;

/** Whether a node is an operation between processes. */
export function isCollective(node: Node): node is CollectiveNode {
  return node.op === 'allReduce' || node.op === 'allGather' || node.op === 'reduceScatter';
}

/** Computes an operation between processes, which all have to do. */
export async function collective(
  node: CollectiveNode,
  { data }: Values,
  processes: ProcessGroup,
): Promise<Values> {
  const bytes = await processes.exchange(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  // A copy: what comes over the network is not aligned.
  const all = bytes.map((one) => new Float64Array(new Uint8Array(one).buffer));
  return rounded(at(node.results, 0), combined(node, all, processes));
}

function combined(
  node: CollectiveNode,
  all: readonly Float64Array[],
  { rank, world }: ProcessGroup,
): Float64Array {
  if (node.op === 'allGather') return Float64Array.from(all.flatMap((one) => [...one]));
  const sum = at(all, 0).map((_, index) => all.reduce((total, one) => total + at(one, index), 0));
  const part = sum.length / world;
  return node.op === 'allReduce' ? sum : sum.slice(rank * part, (rank + 1) * part);
}
