import { TensorMap } from '../../tensor/rewrite.ts';
import { type Node, type NodeOf, operandsOf, type Tensor } from '../../tensor/tensor.ts';
import { isGemm } from './matmul.ts';

/** A matrix product and the vector that is added to each of its rows: one Gemm. */
export interface BiasedMatmul {
  readonly matmul: NodeOf<'matmul'>;
  readonly bias: Tensor;
}

/**
 * Additions of a bias to a product that nothing else reads, by the adding node. ONNX Runtime fuses the two only in
 * graphs whose products are two-dimensional from the start.
 */
export function findBiasedMatmuls(
  nodes: readonly Node[],
  outputs: readonly Tensor[],
): ReadonlyMap<Node, BiasedMatmul> {
  const reads = new TensorMap<number>();
  for (const tensor of [...outputs, ...nodes.flatMap(operandsOf)])
    reads.set(tensor, (reads.get(tensor) ?? 0) + 1);
  const found = new Map<Node, BiasedMatmul>();
  for (const node of nodes) {
    if (node.op !== 'add') continue;
    const [a, b] = node.operands;
    const match = biasedMatmul(a, b) ?? biasedMatmul(b, a);
    if (match !== undefined && reads.get(match.product) === 1) found.set(node, match);
  }
  return found;
}

function biasedMatmul(product: Tensor, bias: Tensor): (BiasedMatmul & { product: Tensor }) | undefined {
  const { node } = product;
  const fits =
    node.op === 'matmul' &&
    isGemm(...node.operands, node.attributes) &&
    bias.rank === 1 &&
    bias.shape[0] === product.shape.at(-1);
  return fits ? { matmul: node, bias, product } : undefined;
}
