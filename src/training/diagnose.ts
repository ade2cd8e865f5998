import { BufferScope, type DeviceBuffer, type Executor, uploadTree } from '../executors/executor.ts';
import { concat, where } from '../tensor/functions.ts';
import { gradients } from '../tensor/gradients.ts';
import { makeGraph } from '../tensor/graph.ts';
import { toFloat32 } from '../tensor/host-tensor.ts';
import type { TensorType } from '../tensor/shape.ts';
import {
  type Graph,
  isDifferentiable,
  type Node,
  nodesOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../tensor/tensor.ts';
import { trace } from '../tensor/trace.ts';
import { leaves, mapTree } from '../tensor/tree.ts';
import type { Batch } from './batch.ts';
import type { TrainingModel } from './step.ts';

/**
 * Where a step first goes wrong: runs loss and gradients once more and looks at every intermediate value, in the order
 * of computation, blocks as a whole.
 *
 * @param parameters the parameters before the step, on the device; they stay as they are.
 * @returns what first holds NaN or infinity, such as `layer blocks.2, forward pass (call)`; undefined when nothing does.
 */
export async function findNonFinite(
  executor: Executor,
  model: TrainingModel,
  parameters: object,
  batch: Batch,
): Promise<string | undefined> {
  const graph = traceLoss(model, parameters, batch.values);
  const probes = probesOf(graph);
  const counts = probes.map((tensor) => nonFiniteCount(tensor).reshape([1]));
  const probing = makeGraph('find non-finite values', graph.inputs, [concat(counts, 0)], ['counts']);
  using executable = await executor.compile(probing);
  using scope = new BufferScope();
  const inputs = scope.own(uploadTree(executor, batch.values as object));
  const buffers = [...leaves(parameters), ...leaves(inputs)] as DeviceBuffer[];
  const [result] = scope.own([...(await executor.run(executable, buffers))]);
  if (result === undefined) throw new Error('the probe gave nothing');
  const found = toFloat32(await executor.download(result));
  const first = probes.find((_, index) => (found[index] ?? 0) > 0);
  return first === undefined ? undefined : describeNode(first.node, graph);
}

function describeNode(node: Node, graph: Graph): string {
  if (node.op === 'input') return `input ${nameOf(node.attributes.name)}, before anything was computed`;
  const forward = new Set(nodesOf(graph.outputs.slice(0, 1)));
  const what = node.op === 'call' ? node.attributes.graph.name : node.op;
  return `layer ${layerOf(node)}, ${forward.has(node) ? 'forward' : 'backward'} pass (${what})`;
}

/** Outputs: the loss, then the gradients. */
function traceLoss(model: TrainingModel, parameters: object, values: object): Graph {
  const types = (tree: object) =>
    mapTree(tree, (leaf) => ({ shape: (leaf as TensorType).shape, dtype: (leaf as TensorType).dtype }));
  const lossAndGradients = (p: object, b: object) => {
    const { loss } = model.loss(p, b);
    return { loss, found: gradients(loss, p) };
  };
  return trace('loss and gradients', lossAndGradients, types(parameters), types(values)).graph;
}

/**
 * Every floating value of a graph, inputs first, each after what it is computed from: the first that is not finite is
 * where it began. Constants and values that only lie differently are left out.
 */
function probesOf(graph: Graph): Tensor[] {
  const silent = new Set<string>(['input', 'constant', 'reshape', 'transpose', 'broadcast', 'slice']);
  const computed = graph.nodes.filter(({ op }) => !silent.has(op)).flatMap(resultsOf);
  return [...graph.inputs, ...computed].filter(isDifferentiable);
}

/** Comparisons with NaN do not hold. */
function nonFiniteCount(tensor: Tensor): Tensor {
  return where(tensor.abs().less(3e38), 0, 1).sum();
}

/** The parameters that a node reads, by what their paths share; of a node that reads none, of those before it. */
function layerOf(node: Node): string {
  let reached: readonly Node[] = [node];
  for (let depth = 0; depth < 8 && reached.length > 0; depth++) {
    const operands = reached.flatMap((one) => operandsOf(one).map((tensor) => tensor.node));
    const names = operands.flatMap((one) =>
      one.op === 'input' && one.attributes.name.startsWith('0.') ? [nameOf(one.attributes.name)] : [],
    );
    if (names.length > 0) return commonPath(names);
    reached = operands;
  }
  return 'after the last parameters';
}

function nameOf(input: string): string {
  return input.replace(/^\d+\./, '');
}

/** What paths share: `blocks.2` of `blocks.2.qkv.weight` and `blocks.2.out.bias`; of a single one, what holds it. */
function commonPath(paths: readonly string[]): string {
  const [first = [], ...others] = paths.map((path) => path.split('.'));
  const holder = first.length > 1 ? first.slice(0, -1) : first;
  const length = holder.findIndex((part, i) => others.some((other) => other[i] !== part));
  const shared = length < 0 ? holder : holder.slice(0, length);
  return shared.length > 0 ? shared.join('.') : paths.slice(0, 2).join(' and ');
}
