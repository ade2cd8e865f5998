import { bytesPerElement } from '../tensor/dtype.ts';
import { at, elementCount, type TensorType } from '../tensor/shape.ts';
import { type Graph, type Node, operandsOf, resultsOf, type Tensor } from '../tensor/tensor.ts';

/** What running a graph once comes to. */
export interface GraphCost {
  /** Additions and multiplications of its products: matrix products, convolutions, attention. */
  readonly operations: number;
  /** Most bytes of intermediate values and results that are needed at once; inputs and constants are not counted. */
  readonly peakBytes: number;
}

/** The {@link GraphCost} of a graph whose nodes run in order and whose values are freed after their last use. */
export function costOf(graph: Graph): GraphCost {
  const last = lastUses(graph);
  let [operations, peakBytes, live] = [0, 0, 0];
  for (const [position, node] of graph.nodes.entries()) {
    const inner = node.op === 'call' ? costOf(node.attributes.graph) : undefined;
    operations += inner?.operations ?? operationsOf(node);
    const made = ownsMemory(node) ? sum(node.results.map(bytesOf)) : 0;
    peakBytes = Math.max(peakBytes, live + Math.max(made, inner?.peakBytes ?? 0));
    live += made;
    for (const tensor of last.get(position) ?? []) live -= bytesOf(tensor);
  }
  return { operations, peakBytes };
}

/** For each position in a graph's order, the values that nothing reads after it. */
function lastUses({ nodes, outputs }: Graph): ReadonlyMap<number, readonly Tensor[]> {
  const kept = new Set(outputs.map(({ node }) => node));
  const positions = new Map<Node, number>();
  for (const [position, node] of nodes.entries()) {
    positions.set(node, position);
    for (const operand of operandsOf(node)) positions.set(operand.node, position);
  }
  const last = new Map<number, Tensor[]>();
  for (const [node, position] of positions) {
    if (kept.has(node) || !ownsMemory(node)) continue;
    last.set(position, [...(last.get(position) ?? []), ...resultsOf(node)]);
  }
  return last;
}

/** Views and what the caller holds take no memory of a run. */
function ownsMemory({ op }: Node): boolean {
  return op !== 'input' && op !== 'constant' && op !== 'reshape' && op !== 'broadcast';
}

function operationsOf(node: Node): number {
  const result = node.results[0];
  if (result === undefined) return 0;
  switch (node.op) {
    case 'matmul': {
      const { shape } = node.operands[0];
      return 2 * elementCount(result.shape) * at(shape, shape.length - (node.attributes.transposeA ? 2 : 1));
    }
    case 'convolution': {
      const { shape } = node.operands[1];
      return (2 * elementCount(result.shape) * elementCount(shape)) / at(shape, 0);
    }
    case 'attention':
      return 4 * elementCount(result.shape) * at(node.operands[1].shape, 1);
    default:
      return 0;
  }
}

function bytesOf({ shape, dtype }: TensorType): number {
  return elementCount(shape) * bytesPerElement(dtype);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
