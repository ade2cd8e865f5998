import { input, makeGraph } from '../../tensor/graph.ts';
import { substitute } from '../../tensor/rewrite.ts';
import {
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../tensor/tensor.ts';

/** One step of a program: a graph run as a session of its own. Values are numbered slots. */
export interface Stage {
  readonly graph: Graph;
  /** Slot of each graph input. */
  readonly inputs: readonly number[];
  /** Slot of each graph output. */
  readonly outputs: readonly number[];
}

/** A graph cut into stages. Slots 0 to inputs-1 hold the graph's inputs. */
export interface StagedGraph {
  readonly stages: readonly Stage[];
  /** Slot of each output of the whole. */
  readonly outputs: readonly number[];
}

/**
 * Cuts a graph at its calls: each call is a stage, and so is each stretch of other operations between calls. A block
 * called for every layer is then compiled once, intermediate values of a stage die with it, and what lives between
 * stages is known, so that it can be freed after its last use.
 */
export function stageGraph(graph: Graph): StagedGraph {
  const calls = graph.nodes.filter((node): node is NodeOf<'call'> => node.op === 'call');
  const stretches = placeInStretches(graph, calls);
  const slots = new Map<Tensor, number>();
  let nextSlot = 0;
  const newSlot = (tensor: Tensor) => {
    slots.set(tensor, nextSlot);
    return nextSlot++;
  };
  const slotOf = (tensor: Tensor) => slots.get(tensor) ?? newSlot(tensor);
  graph.inputs.forEach(newSlot);

  const leaving = valuesLeavingStretches(graph, stretches);
  const stages: Stage[] = [];
  for (let position = 0; position <= calls.length; position++) {
    const outputs = leaving.get(position) ?? [];
    if (outputs.length > 0) stages.push(stretchStage(graph.name, position, outputs, stretches, slotOf));
    const call = calls[position];
    if (call !== undefined) {
      const { graph: callee } = call.attributes;
      stages.push({ graph: callee, inputs: call.operands.map(slotOf), outputs: resultsOf(call).map(slotOf) });
    }
  }
  return { stages, outputs: graph.outputs.map(slotOf) };
}

/** The stretch in which each plain node runs: the first after all calls that it needs. Constants go everywhere. */
function placeInStretches(graph: Graph, calls: readonly Node[]): ReadonlyMap<Node, number> {
  const callNumbers = new Map(calls.map((call, index) => [call, index]));
  const stretches = new Map<Node, number>();
  for (const node of graph.nodes) {
    if (node.op === 'call' || node.op === 'input') continue;
    const needed = operandsOf(node).map(({ node: from }) => {
      const call = callNumbers.get(from);
      return call === undefined ? (stretches.get(from) ?? 0) : call + 1;
    });
    stretches.set(node, Math.max(0, ...needed));
  }
  return stretches;
}

/** Values that each stretch must hand out: to calls, to other stretches, and as outputs of the whole. */
function valuesLeavingStretches(
  graph: Graph,
  stretches: ReadonlyMap<Node, number>,
): ReadonlyMap<number, Tensor[]> {
  const leaving = new Map<number, Tensor[]>();
  const seen = new Map<Tensor, true>();
  const leave = (tensor: Tensor) => {
    const stretch = stretches.get(tensor.node);
    if (stretch === undefined || seen.has(tensor)) return;
    seen.set(tensor, true);
    leaving.set(stretch, [...(leaving.get(stretch) ?? []), tensor]);
  };
  for (const node of graph.nodes) {
    for (const operand of operandsOf(node)) {
      const staysInside =
        node.op !== 'call' &&
        (operand.node.op === 'constant' || stretches.get(operand.node) === stretches.get(node));
      if (!staysInside) leave(operand);
    }
  }
  graph.outputs.forEach(leave);
  return leaving;
}

function stretchStage(
  name: string,
  position: number,
  outputs: readonly Tensor[],
  stretches: ReadonlyMap<Node, number>,
  slotOf: (tensor: Tensor) => number,
): Stage {
  const replacements = new Map<Tensor, Tensor>();
  const inputs: Tensor[] = [];
  const slots: number[] = [];
  const visited = new Set<Node>();
  const pending = outputs.map(({ node }) => node);
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (visited.has(node)) continue;
    visited.add(node);
    for (const operand of operandsOf(node)) {
      if (operand.node.op === 'constant' || replacements.has(operand)) continue;
      if (stretches.get(operand.node) === position) {
        pending.push(operand.node);
        continue;
      }
      const replacement = input(`${slots.length}`, operand);
      replacements.set(operand, replacement);
      inputs.push(replacement);
      slots.push(slotOf(operand));
    }
  }
  const graph = makeGraph(`${name}.${position}`, inputs, substitute(outputs, replacements));
  return { graph, inputs: slots, outputs: outputs.map(slotOf) };
}
