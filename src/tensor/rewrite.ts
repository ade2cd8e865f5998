import { at } from './shape.ts';
import {
  apply,
  applyAgain,
  type Graph,
  type Node,
  type NodeOf,
  nodesOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from './tensor.ts';

/**
 * Rebuilds `targets` with some tensors replaced. Nodes that no replacement reaches are shared, not copied.
 * @param replacements what stands in for a tensor.
 */
export function substitute(targets: readonly Tensor[], replacements: ReadonlyMap<Tensor, Tensor>): Tensor[] {
  return rewrite(targets, replacements, applyAgain);
}

/**
 * Rebuilds what a graph's outputs need by a rule.
 * @param rule what stands in for a node's results, given its operands as rebuilt; undefined: the operation itself.
 */
export function rewriteNodes(
  { nodes, outputs }: Pick<Graph, 'nodes' | 'outputs'>,
  rule: (node: Node, operands: readonly Tensor[]) => readonly Tensor[] | undefined,
): Tensor[] {
  return rewriteAll(
    nodes,
    outputs,
    new Map(),
    (node, operands) => rule(node, operands) ?? applyAgain(node, operands),
  );
}

/** Inlines every call, so that only primitive operations remain. */
export function inlineCalls(targets: readonly Tensor[]): Tensor[] {
  return rewrite(targets, new Map(), inlined);
}

/** A node's results without calls. Walks a called graph's own nodes, and not what its operands are made of. */
function inlined(node: Node, operands: readonly Tensor[]): readonly Tensor[] {
  if (node.op !== 'call') return applyAgain(node, operands);
  const { graph } = node.attributes;
  const inputs = new Map<Tensor, Tensor>();
  graph.inputs.forEach((input, index) => {
    inputs.set(input, at(operands, index));
  });
  return rewriteAll(graph.nodes, graph.outputs, inputs, inlined);
}

/**
 * Merges each call of a graph with a call, on the same operands, of an extension of it ({@link Graph.base}).
 * Gradients add such extended calls to keep intermediate results; without merging the forward pass would run twice.
 * @param nodes those that the targets need, operands first.
 * @returns the targets themselves when there is nothing to merge.
 */
export function mergeCalls(targets: readonly Tensor[], nodes: readonly Node[]): readonly Tensor[] {
  const calls = nodes.filter((node): node is NodeOf<'call'> => node.op === 'call');
  const extensions = new Map<string, Graph>();
  for (const call of calls) {
    const { base } = call.attributes.graph;
    if (base !== undefined) extensions.set(callKey(call, base), call.attributes.graph);
  }
  if (!calls.some((call) => extensions.has(callKey(call, call.attributes.graph)))) return targets;

  const merged = new Map<string, readonly Tensor[]>();
  return rewriteAll(nodes, targets, new Map(), (node, operands) => {
    if (node.op !== 'call') return applyAgain(node, operands);
    const { graph, recompute } = node.attributes;
    const extension = extensions.get(callKey(node, graph)) ?? graph;
    const key = callKey(node, extension);
    const results = merged.get(key) ?? apply('call', operands, { graph: extension, recompute }, node.origin);
    merged.set(key, results);
    return results;
  });
}

type Rebuild = (node: Node, operands: readonly Tensor[]) => readonly Tensor[];

function rewrite(
  targets: readonly Tensor[],
  replacements: ReadonlyMap<Tensor, Tensor>,
  rebuildNode: Rebuild,
): Tensor[] {
  return rewriteAll(nodesOf(targets), targets, replacements, rebuildNode);
}

/** {@link rewrite} where nodes among which are those that the targets need are known, operands first. */
function rewriteAll(
  nodes: readonly Node[],
  targets: readonly Tensor[],
  replacements: ReadonlyMap<Tensor, Tensor>,
  rebuildNode: Rebuild,
): Tensor[] {
  const rewritten = new Map(replacements);
  const lookUp = (tensor: Tensor) => rewritten.get(tensor) ?? tensor;
  for (const node of nodes) {
    const originals = resultsOf(node);
    if (originals.every((tensor) => replacements.has(tensor))) continue;
    const results = rebuildNode(node, operandsOf(node).map(lookUp));
    originals.forEach((tensor, index) => {
      const result = at(results, index);
      if (result !== tensor && !replacements.has(tensor)) rewritten.set(tensor, result);
    });
  }
  return targets.map(lookUp);
}

function callKey(call: NodeOf<'call'>, graph: Graph): string {
  const operands = call.operands.map(({ node, index }) => `${node.id}.${index}`);
  return `${graphNumber(graph)}(${operands})`;
}

const graphNumbers = new WeakMap<Graph, number>();
let nextGraphNumber = 0;

function graphNumber(graph: Graph): number {
  const number = graphNumbers.get(graph) ?? nextGraphNumber++;
  graphNumbers.set(graph, number);
  return number;
}
