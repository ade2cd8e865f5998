import { makeGraph } from '../../../tensor/graph.ts';
import { rewriteNodes } from '../../../tensor/rewrite.ts';
import { addTo, at } from '../../../tensor/shape.ts';
import { copyOf, type Graph, type Node, operandsOf, resultsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Op } from '../../../tensor/vocabulary.ts';
import { isProduct } from '../narrowing.ts';
import { chooseInlined } from '../plain/inlining.ts';
import { reshaped } from '../views.ts';
import { furthest } from './grouping.ts';

/**
 * A graph in which gradients of weights read operands that are computed again, where all that those are computed from is in
 * memory until then anyway: a gelu from what its own gradient is computed from, a norm from its input. Else both were kept
 * from the forward pass on. The kernel that reads the same in the backward pass makes them on the way: they are written
 * twice, but nothing is read more often.
 */
export function withLateUses(graph: Graph): Graph {
  const isLate = lateUses(graph);
  if (isLate === undefined) return graph;
  const copies = new Map<Tensor, Tensor>();
  const again = (whole: Tensor) => {
    const copy = copies.get(whole) ?? at(copyOf(whole.node, operandsOf(whole.node)), whole.index);
    copies.set(whole, copy);
    return copy;
  };
  // Every node is made anew, so that the order in which they were made stays the order of the graph.
  const outputs = rewriteNodes(graph, (node, operands) => {
    if (node.op === 'input') return undefined;
    const given = operandsOf(node).map((original, index) => {
      const operand = at(operands, index);
      if (!isLate(reshaped(original).node, node)) return operand;
      return again(reshaped(operand)).reshape(operand.shape);
    });
    return copyOf(node, given);
  });
  return makeGraph(graph.name, graph.inputs, outputs, graph.outputNames);
}

/** Products that others are made of are never so far from what makes their operands. */
function isWeightGradient({ op }: Node): boolean {
  return op === 'matmul' || op === 'convolutionKernelGradient';
}

/** Which uses of which nodes are to compute them again; undefined: none. */
function lateUses(graph: Graph): ((node: Node, user: Node) => boolean) | undefined {
  const { isInlined, isRepeated } = chooseInlined(graph, isProduct);
  const isComputed = (tensor: Tensor) => isInlined(tensor) || isRepeated(tensor);
  const numbers = new Map(graph.nodes.map((node, index) => [node, index]));
  const numberOf = (node: Node) => numbers.get(node) ?? 0;
  const isFar = (node: Node, user: Node) => numberOf(user) - numberOf(node) > furthest;
  const lastReads = lastReadsOf(graph, isComputed);
  const isKeptUntil = (user: Node) => (source: Tensor) =>
    source.node.op === 'input' ||
    source.node.op === 'constant' ||
    (lastReads.get(source) ?? 0) >= numberOf(user);

  const readers = new Map<Node, Node[]>();
  for (const node of graph.nodes.filter(isProduct))
    for (const operand of operandsOf(node)) {
      const whole = reshaped(operand);
      if (isRepeated(whole)) addTo(readers, whole.node, node);
    }
  const late = new Set<Node>();
  for (const [node, users] of readers) {
    const sources = sourcesOf(node, isComputed);
    const far = users.filter((user) => isFar(node, user));
    if (sources && far.every((user) => isWeightGradient(user) && sources.every(isKeptUntil(user))))
      late.add(node);
  }
  if (late.size === 0) return undefined;
  return (node, user) => late.has(node) && isFar(node, user);
}

/** The tensors in memory that a node's result is computed from; undefined when it is not element by element. */
function sourcesOf(node: Node, isComputed: (tensor: Tensor) => boolean): readonly Tensor[] | undefined {
  const sources = new Set<Tensor>();
  const seen = new Set([node]);
  for (const inner of seen) {
    if (moved.includes(inner.op)) return undefined;
    for (const operand of operandsOf(inner)) {
      const whole = reshaped(operand);
      if (isComputed(whole)) seen.add(whole.node);
      else sources.add(whole);
    }
  }
  return [...sources];
}

/** Operations whose elements are computed from elements at other places: no kernel makes them on the way. */
const moved: readonly Op[] = ['concat', 'pad', 'transpose', 'rotary'];

/** The number of the last node at which each tensor is read from memory, also on the way to what is computed from it. */
function lastReadsOf(graph: Graph, isComputed: (tensor: Tensor) => boolean): ReadonlyMap<Tensor, number> {
  const reads = new Map<Tensor, number>();
  // The same without products, which read from memory what kernels would compute on the way.
  const kernelReads = new Map<Tensor, number>();
  const note = (map: Map<Tensor, number>, tensor: Tensor, number: number) => {
    if (number > (map.get(tensor) ?? -1)) map.set(tensor, number);
  };
  const last = (map: Map<Tensor, number>, tensors: readonly Tensor[]) =>
    tensors.reduce((latest, tensor) => Math.max(latest, map.get(tensor) ?? 0), 0);
  for (const output of graph.outputs) note(reads, output, graph.nodes.length);
  for (let number = graph.nodes.length - 1; number >= 0; number--) {
    const node = at(graph.nodes, number);
    const results = resultsOf(node);
    const isView = node.op === 'reshape';
    const isRead = !isProduct(node);
    const own = results.every(isComputed) ? Math.max(number, last(kernelReads, results)) : number;
    const [latest, latestInKernels] = isView
      ? [last(reads, results), last(kernelReads, results)]
      : [own, own];
    for (const operand of operandsOf(node)) {
      note(reads, operand, latest);
      if (isRead) note(kernelReads, operand, latestInKernels);
    }
  }
  return reads;
}
