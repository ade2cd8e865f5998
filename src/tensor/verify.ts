import { describeNode, sourceOf } from './print.ts';
import { formatType, GraphError, sameShape, type TensorType } from './shape.ts';
import { type Graph, inferTypes, type Node, type NodeOf, operandsOf } from './tensor.ts';
import type { Op } from './vocabulary.ts';

/**
 * Checks a graph and every graph it calls: operands come before their use, types are what the shape rules say, every
 * input that is read is declared, names are unique. Run between stages, it catches a pass that broke the graph.
 *
 * @param stage what produced the graph, for the message.
 * @throws GraphError naming graph, node, operation, types and source line.
 */
export function verify(graph: Graph, stage: string): void {
  verifyGraph(graph, stage, new Set());
}

function verifyGraph(graph: Graph, stage: string, verified: Set<Graph>): void {
  if (verified.has(graph)) return;
  verified.add(graph);
  const fail = (message: string): never => {
    throw new GraphError(`${stage}: graph ${graph.name}: ${message}`);
  };
  requireUnique(
    graph.inputs.map(({ node }) =>
      node.op === 'input' ? node.attributes.name : fail('an input is not an input node'),
    ),
    'input',
    fail,
  );
  requireUnique(graph.outputNames, 'output', fail);
  if (graph.outputNames.length !== graph.outputs.length)
    fail(`${graph.outputs.length} outputs have ${graph.outputNames.length} names`);

  const declared = new Set(graph.inputs.map(({ node }) => node));
  const seen = new Set<Node>();
  graph.nodes.forEach((node, position) => {
    const failAt = (message: string) =>
      fail(`node ${position}, ${describeNode(node)}, made at ${sourceOf(node)}: ${message}`);
    if (node.op === 'input' && !declared.has(node)) failAt(`input ${node.attributes.name} is not declared`);
    for (const operand of operandsOf(node)) {
      if (!seen.has(operand.node)) failAt(`operand ${formatType(operand)} is used before it is made`);
      if (!sameType(operand, operand.node.results[operand.index]))
        failAt(`operand ${formatType(operand)} is not what its node makes`);
    }
    verifyTypes(node, failAt);
    if (node.op === 'call') verifyGraph(node.attributes.graph, stage, verified);
    seen.add(node);
  });
  for (const output of graph.outputs)
    if (!seen.has(output.node)) fail(`output ${formatType(output)} is not made in it`);
}

function verifyTypes<K extends Op>(node: NodeOf<K> | Node, fail: (message: string) => void): void {
  const { op, operands, attributes, results } = node as NodeOf<K>;
  const inferred = inferTypes(op, operands, attributes);
  const agree =
    inferred.length === results.length && inferred.every((type, index) => sameType(type, results[index]));
  if (!agree) fail(`its shape rule gives ${inferred.map(formatType).join(', ')}`);
}

function sameType(a: TensorType, b: TensorType | undefined): boolean {
  return b !== undefined && a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

function requireUnique(names: readonly string[], kind: string, fail: (message: string) => void): void {
  const repeated = names.find((name, index) => names.indexOf(name) !== index);
  if (repeated !== undefined) fail(`two ${kind}s are named ${repeated}`);
}
