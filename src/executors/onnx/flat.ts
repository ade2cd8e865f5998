import { input, makeGraph } from '../../tensor/graph.ts';
import { substitute } from '../../tensor/rewrite.ts';
import { at, elementCount, sameShape } from '../../tensor/shape.ts';
import { type Graph, type Node, nodesOf, operandsOf, type Tensor } from '../../tensor/tensor.ts';
import type { Op } from '../../tensor/vocabulary.ts';
import { elementwiseOps } from './fused/space.ts';

/** Operations whose result depends, element by element, on the same elements of the operands. */
const elementwise: ReadonlySet<Op> = new Set<Op>([
  ...elementwiseOps,
  'log',
  'sin',
  'cos',
  'equal',
  'less',
  'where',
  'cast',
]);

/** Kernels that read each element before they write it, so that the result may lie in an operand's memory. */
const inPlaceKernels: ReadonlySet<Op> = new Set<Op>(['add', 'sub', 'mul', 'div']);

/**
 * The same graph over vectors, if it is elementwise throughout: every value has one shape or is a scalar. It may then be
 * run on stretches of its inputs, and one session serves all sizes.
 */
export function flattened(graph: Graph, wanted: readonly number[]): Graph | undefined {
  const outputs = wanted.map((index) => at(graph.outputs, index));
  const { shape } = at(outputs, 0);
  const size = elementCount(shape);
  const nodes = nodesOf(outputs);
  const fits = ({ shape: other }: { shape: readonly number[] }) =>
    other.length === 0 || sameShape(other, shape);
  const isFlat =
    size > 1 &&
    outputs.every((output) => sameShape(output.shape, shape)) &&
    nodes.some(({ op }) => elementwise.has(op)) &&
    nodes.every((node) =>
      node.op === 'constant'
        ? at(node.results, 0).shape.length === 0
        : (node.op === 'input' || elementwise.has(node.op)) && node.results.every(fits),
    );
  if (!isFlat) return undefined;
  const replacements = new Map<Tensor, Tensor>();
  const inputs = graph.inputs.map((original, index) => {
    const replacement = input(`${index}`, {
      shape: original.shape.length === 0 ? [] : [size],
      dtype: original.dtype,
    });
    replacements.set(original, replacement);
    return replacement;
  });
  return makeGraph(graph.name, inputs, substitute(outputs, replacements));
}

/**
 * Inputs whose memory outputs may take over, as [output, input] indices: of one type, and every node that reads the
 * input runs before the node that makes the output, or is it.
 */
export function inPlacePairs(graph: Graph): (readonly [output: number, input: number])[] {
  const readers = new Map<Node, Node[]>();
  for (const node of graph.nodes)
    for (const { node: operand } of operandsOf(node))
      readers.set(operand, [...(readers.get(operand) ?? []), node]);
  const taken = new Set<number>();
  return graph.outputs.flatMap((output, index) => {
    const earlier = new Set(nodesOf(operandsOf(output.node)));
    const found = graph.inputs.findIndex(
      (candidate, i) =>
        !taken.has(i) &&
        candidate.node !== output.node &&
        readers.has(candidate.node) &&
        candidate.dtype === output.dtype &&
        sameShape(candidate.shape, output.shape) &&
        (readers.get(candidate.node) ?? []).every(
          (reader) => earlier.has(reader) || (reader === output.node && inPlaceKernels.has(reader.op)),
        ),
    );
    if (found < 0) return [];
    taken.add(found);
    return [[index, found] as const];
  });
}
