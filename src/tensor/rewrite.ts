import { at } from './shape.ts';
import {
  apply,
  type Graph,
  type Node,
  type NodeOf,
  nodesOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from './tensor.ts';

/** A map from tensors. Two tensor objects are the same key when they are the same result of the same node. */
export class TensorMap<Value> {
  private readonly values = new Map<Node, Value[]>();

  /** The value of `tensor`, if it has one. */
  get(tensor: Tensor): Value | undefined {
    return this.values.get(tensor.node)?.[tensor.index];
  }

  /** Sets the value of `tensor`. */
  set(tensor: Tensor, value: Value): void {
    const values = this.values.get(tensor.node) ?? [];
    values[tensor.index] = value;
    this.values.set(tensor.node, values);
  }

  /** Whether `tensor` has a value. */
  has(tensor: Tensor): boolean {
    return this.get(tensor) !== undefined;
  }
}

/**
 * Rebuilds `targets` with some tensors replaced. Nodes that no replacement reaches are shared, not copied.
 * @param replacements what stands in for a tensor, of the same type.
 */
export function substitute(targets: readonly Tensor[], replacements: TensorMap<Tensor>): Tensor[] {
  return rewrite(targets, replacements, (node, operands) => rebuild(node, operands));
}

/**
 * Rebuilds `targets` by a rule.
 * @param rule what stands in for a node's results, given its operands as rebuilt; undefined: the operation itself.
 */
export function rewriteNodes(
  targets: readonly Tensor[],
  rule: (node: Node, operands: readonly Tensor[]) => readonly Tensor[] | undefined,
): Tensor[] {
  return rewrite(
    targets,
    new TensorMap(),
    (node, operands) => rule(node, operands) ?? rebuild(node, operands),
  );
}

/** Inlines every call, so that only primitive operations remain. */
export function inlineCalls(targets: readonly Tensor[]): Tensor[] {
  return rewrite(targets, new TensorMap(), inlined);
}

/** A node's results without calls. Walks a called graph's own nodes, and not what its operands are made of. */
function inlined(node: Node, operands: readonly Tensor[]): readonly Tensor[] {
  if (node.op !== 'call') return rebuild(node, operands);
  const { graph } = node.attributes;
  const inputs = new TensorMap<Tensor>();
  graph.inputs.forEach((input, index) => {
    inputs.set(input, at(operands, index));
  });
  return rewriteAll(graph.nodes, graph.outputs, inputs, inlined);
}

/**
 * Merges each call of a graph with a call, on the same operands, of an extension of it ({@link Graph.base}).
 * Gradients add such extended calls to keep intermediate results; without merging the forward pass would run twice.
 */
export function mergeCalls(targets: readonly Tensor[]): readonly Tensor[] {
  const calls = nodesOf(targets).filter((node): node is NodeOf<'call'> => node.op === 'call');
  const extensions = new Map<string, Graph>();
  for (const call of calls) {
    const { base } = call.attributes.graph;
    if (base !== undefined) extensions.set(callKey(call, base), call.attributes.graph);
  }
  if (!calls.some((call) => extensions.has(callKey(call, call.attributes.graph)))) return targets;

  const merged = new Map<string, readonly Tensor[]>();
  return rewrite(targets, new TensorMap(), (node, operands) => {
    if (node.op !== 'call') return rebuild(node, operands);
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
  replacements: TensorMap<Tensor>,
  rebuildNode: Rebuild,
): Tensor[] {
  return rewriteAll(nodesOf(targets), targets, replacements, rebuildNode);
}

/** {@link rewrite} where the nodes that the targets need are known, operands first. */
function rewriteAll(
  nodes: readonly Node[],
  targets: readonly Tensor[],
  replacements: TensorMap<Tensor>,
  rebuildNode: Rebuild,
): Tensor[] {
  const rewritten = new TensorMap<Tensor>();
  const lookUp = (tensor: Tensor) => replacements.get(tensor) ?? rewritten.get(tensor) ?? tensor;
  for (const node of nodes) {
    const originals = resultsOf(node);
    if (originals.every((tensor) => replacements.has(tensor))) continue;
    const results = rebuildNode(node, operandsOf(node).map(lookUp));
    originals.forEach((tensor, index) => {
      rewritten.set(tensor, at(results, index));
    });
  }
  return targets.map(lookUp);
}

/** The node itself when its operands are unchanged, else the same operation on the new ones. */
function rebuild(node: Node, operands: readonly Tensor[]): readonly Tensor[] {
  const unchanged = operandsOf(node).every((operand, index) => {
    const found = at(operands, index);
    return operand.node === found.node && operand.index === found.index;
  });
  if (unchanged) return resultsOf(node);
  // The operation and its attributes are the node's own; only TypeScript loses the link between them.
  return apply(node.op as 'concat', operands, node.attributes as NodeOf<'concat'>['attributes'], node.origin);
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
