import { mergeCalls } from './rewrite.ts';
import { GraphError, type TensorType } from './shape.ts';
import { applyOne, type Graph, nodesOf, type Tensor } from './tensor.ts';

/** A new graph input. */
export function input(name: string, { shape, dtype }: TensorType): Tensor {
  return applyOne('input', [], { name, shape, dtype });
}

/**
 * Closes a graph over what `outputs` need.
 * @param base set when the graph is `base` with further outputs appended.
 * @throws GraphError when they need an input that is not among `inputs`.
 */
export function makeGraph(
  name: string,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  outputNames: readonly string[] = outputs.map((_, index) => `${index}`),
  base?: Graph,
): Graph {
  const given = nodesOf([...inputs, ...outputs]);
  const merged = mergeCalls(outputs, given);
  const nodes = merged === outputs ? given : nodesOf([...inputs, ...merged]);
  const own = new Set(inputs.map(({ node }) => node));
  for (const node of nodes) {
    if (node.op === 'input' && !own.has(node)) {
      throw new GraphError(`${name} uses ${node.attributes.name} from outside; pass it as an argument`);
    }
  }
  return { name, inputs, outputs: merged, outputNames, nodes, ...(base && { base }) };
}
