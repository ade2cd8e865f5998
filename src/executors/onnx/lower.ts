import { inlineCalls, TensorMap } from '../../tensor/rewrite.ts';
import { at, GraphError } from '../../tensor/shape.ts';
import { type Graph, type NodeOf, nodesOf, operandsOf, type Tensor } from '../../tensor/tensor.ts';
import type { Op } from '../../tensor/vocabulary.ts';
import { Emitter, holdingType, type LoweringTarget, type Value } from './emitter.ts';
import { type Lowering, lowerings, type StructuralOp } from './lowerings.ts';

/** A graph as an ONNX model; values are fed as `i0`, `i1`, .. and fetched under the names in `outputs`. */
export interface LoweredGraph {
  readonly model: Uint8Array<ArrayBuffer>;
  /** Which graph inputs the model reads, in ascending order: an input that nothing needs is not declared. */
  readonly inputs: readonly number[];
  /** The model's name for each graph output. */
  readonly outputs: readonly string[];
  readonly nodeCount: number;
}

/** Lowers a graph, calls inlined, to one ONNX model. */
export function lowerGraph(graph: Graph, target: LoweringTarget): LoweredGraph {
  const emit = new Emitter(target);
  const outputs = inlineCalls(graph.outputs);
  const nodes = nodesOf(outputs);
  const used = new TensorMap<true>();
  for (const tensor of [...outputs, ...nodes.flatMap(operandsOf)]) used.set(tensor, true);

  const values = new TensorMap<Value>();
  const inputs: number[] = [];
  graph.inputs.forEach((input, index) => {
    if (!used.has(input)) return;
    inputs.push(index);
    const name = emit.model.input(`i${index}`, holdingType(input.dtype), input.shape);
    values.set(input, { name, shape: input.shape, dtype: input.dtype });
  });
  for (const node of nodes) {
    if (node.op === 'input') continue;
    if (node.op === 'call') throw new GraphError(`${graph.name}: a call was not inlined`);
    lowerNode(emit, node, values, used);
  }
  const names = outputs.map((output, index) => {
    // An output of its own for each: a model may not return an input, nor one value twice.
    const value = lookUp(values, output);
    const name = emit.op('Identity', [value], value).name;
    emit.model.output(name, holdingType(output.dtype), at(graph.outputs, index).shape);
    return name;
  });
  return { model: emit.model.finish(), inputs, outputs: names, nodeCount: emit.model.nodeCount };
}

function lowerNode<K extends Exclude<Op, StructuralOp>>(
  emit: Emitter,
  node: NodeOf<K>,
  values: TensorMap<Value>,
  used: TensorMap<true>,
): void {
  const lowering: Lowering<K> = lowerings[node.op];
  const operands = operandsOf(node as unknown as Tensor['node']).map((operand) => lookUp(values, operand));
  const results = node.results.map((_, index) => ({ node, index }) as unknown as Tensor);
  const lowered = lowering(emit, operands as unknown as Parameters<Lowering<K>>[1], {
    attributes: node.attributes as Parameters<Lowering<K>>[2]['attributes'],
    results: node.results,
    used: results.map((result) => used.has(result)),
  });
  lowered.forEach((value, index) => {
    // Lowering rules think in shapes; the result's dtype is the graph's.
    if (value !== undefined) values.set(at(results, index), { ...at(node.results, index), name: value.name });
  });
}

function lookUp(values: TensorMap<Value>, tensor: Tensor): Value {
  const value = values.get(tensor);
  if (value === undefined)
    throw new GraphError(`result ${tensor.index} of ${tensor.node.op} was not lowered`);
  return value;
}
