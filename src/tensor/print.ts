import { formatType, type TensorType } from './shape.ts';
import { type Graph, type Node, operandsOf, type Tensor } from './tensor.ts';

/**
 * A graph as text, one operation a line, followed by the graphs that it calls, each once. `$name` is an input, `%n` the
 * result of line n, `%n.i` one of several.
 * The same computation always prints the same text: snapshots of it pin what tracing and gradients decide.
 */
export function printGraph(graph: Graph): string {
  const printed = new Set<Graph>();
  const pending = [graph];
  const texts: string[] = [];
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    if (printed.has(next)) continue;
    printed.add(next);
    texts.push(printOne(next));
    for (const node of next.nodes) if (node.op === 'call') pending.push(node.attributes.graph);
  }
  return `${texts.join('\n\n')}\n`;
}

/** One node as text, such as `matmul(f32[2, 3], f32[3, 4]) -> f32[2, 4]`, for error messages. */
export function describeNode(node: Node): string {
  return `${node.op}(${operandsOf(node).map(formatType).join(', ')}) -> ${formatResults(node.results)}`;
}

/** Where a node was made, as `file:line:column` of the first caller outside the tensor core; `unknown` if not kept. */
export function sourceOf(node: Node): string {
  const frames = (node.origin.stack ?? '').split('\n').slice(1);
  const caller = frames.find((frame) => !/[\\/](src|dist)[\\/]tensor[\\/]/.test(frame));
  return caller?.match(/((?:file:\/\/)?[^\s()]+:\d+:\d+)\)?$/)?.[1]?.replace('file://', '') ?? 'unknown';
}

function printOne(graph: Graph): string {
  const numbers = new Map<Node, number>();
  const name = ({ node, index }: Tensor) => {
    if (node.op === 'input') return `$${node.attributes.name}`;
    return `%${numbers.get(node)}${node.results.length > 1 ? `.${index}` : ''}`;
  };
  const lines: string[] = [];
  for (const node of graph.nodes) {
    if (node.op === 'input') continue;
    numbers.set(node, numbers.size);
    const operands = operandsOf(node).map(name).join(', ');
    lines.push(
      `  %${numbers.get(node)} = ${node.op}(${operands})${formatAttributes(node)}: ${formatResults(node.results)}`,
    );
  }
  const inputs = graph.inputs.map((tensor) => `  ${name(tensor)}: ${formatType(tensor)}`);
  const outputs = graph.outputs.map((tensor, index) => `  ${graph.outputNames[index]} = ${name(tensor)}`);
  return `graph ${graph.name}\n${inputs.join('\n')}\ndo\n${lines.join('\n')}\nreturn\n${outputs.join('\n')}`;
}

function formatAttributes(node: Node): string {
  if (node.op === 'call')
    return ` ${node.attributes.graph.name}${node.attributes.recompute ? ' recompute' : ''}`;
  const shown = Object.entries(node.attributes)
    .filter(([key]) => key !== 'shape')
    .map(([key, value]) => `${key}=${formatValue(value)}`);
  return shown.length === 0 ? '' : ` {${shown.join(', ')}}`;
}

function formatValue(value: unknown): string {
  if (Array.isArray(value)) {
    const parts = value.slice(0, 8).map(formatValue);
    return `[${parts.join(', ')}${value.length > 8 ? `, .. ${value.length}` : ''}]`;
  }
  return typeof value === 'number' ? String(Number(value.toPrecision(7))) : String(value);
}

function formatResults(results: readonly TensorType[]): string {
  return results.length === 1 ? results.map(formatType).join() : `(${results.map(formatType).join(', ')})`;
}
