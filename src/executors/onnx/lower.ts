import { inlineCalls } from '../../tensor/rewrite.ts';
import { at, GraphError, type Shape, type TensorType } from '../../tensor/shape.ts';
import {
  type Graph,
  type Node,
  type NodeOf,
  nodesOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../tensor/tensor.ts';
import type { Op } from '../../tensor/vocabulary.ts';
import { borderType, Emitter, holdingType, type LoweringTarget, type Value } from './emitter.ts';
import { flattened, inPlacePairs } from './flat.ts';
import type { FusedCode } from './fused/code.ts';
import { type Lowering, lowerings, type StructuralOp } from './lowerings.ts';
import type { Fetch, FlatStage } from './messages.ts';
import { withConvolutions } from './taps.ts';
import { findUnits, readOperands } from './units.ts';

/** A graph, or the part of it that is wanted, as an ONNX model. */
export interface LoweredGraph {
  readonly model: Uint8Array<ArrayBuffer>;
  /** The graph inputs that the model reads, under the names `i0`, `i1`, ..: one that nothing needs is not declared. */
  readonly inputs: readonly number[];
  /** The model's name and type for each wanted output. */
  readonly outputs: readonly Fetch[];
  /** Bytes of every value that the model makes. */
  readonly bytes: number;
  /** Set when the model is elementwise over vectors of any length. */
  readonly flat?: FlatStage;
}

/** Lowers a graph, calls inlined, to one ONNX model that makes the outputs of the given indices. */
export function lowerGraph(graph: Graph, wanted: readonly number[], target: LoweringTarget): LoweredGraph {
  const flat = target.device === 'cpu' ? flattened(graph, wanted) : undefined;
  if (flat === undefined) return lowerOutputs(graph, wanted, target, (shape) => shape);
  const indices = wanted.map((_, index) => index);
  const vectors = (shape: Shape) => shape.map(() => 'n');
  const fused = lowerOutputs(flat, indices, target, vectors);
  const whole = fused.whole !== undefined;
  const lowered = whole ? fused : lowerOutputs(flat, indices, { ...target, ownOperators: false }, vectors);
  const pairs = fused.whole === undefined ? inPlacePairs(flat) : overwrites(flat, fused.whole);
  const inPlace = pairs.map(([output, input]) => [output, lowered.inputs.indexOf(input)] as const);
  const outputs = lowered.outputs.map((fetch, i) => ({
    ...fetch,
    shape: at(graph.outputs, at(wanted, i)).shape,
  }));
  // One operation makes nothing in between; several run on short stretches, so that what they make stays small.
  return { ...lowered, outputs, bytes: 0, flat: { inPlace, whole } };
}

/** @param declared the shape that the model declares for an input or output. */
function lowerOutputs(
  graph: Graph,
  wanted: readonly number[],
  target: LoweringTarget,
  declared: (shape: Shape) => readonly (number | string)[],
): LoweredGraph & { readonly whole: FusedCode | undefined } {
  const emit = new Emitter(target);
  const inlined = inlineCalls(wanted.map((index) => at(graph.outputs, index)));
  const outputs = target.ownOperators ? withConvolutions(inlined) : inlined;
  const nodes = nodesOf(outputs);
  const used = new Map<Tensor, true>();
  for (const tensor of [...outputs, ...nodes.flatMap(readOperands)]) used.set(tensor, true);

  const values = new Map<Tensor, Value>();
  const inputs: number[] = [];
  graph.inputs.forEach((input, index) => {
    if (!used.has(input)) return;
    inputs.push(index);
    const { shape, dtype } = input;
    const border = borderType(dtype, emit.device);
    const value = { name: emit.model.input(`i${index}`, border, declared(shape)), shape, dtype };
    values.set(input, border === holdingType(dtype) ? value : emit.castTo(value, holdingType(dtype), dtype));
  });
  const resolve = (tensor: Tensor) => lookUp(values, tensor);
  const anyLength = graph.inputs.some(({ shape }) => declared(shape).includes('n'));
  const units = findUnits(nodes, outputs, target, anyLength);
  for (const unit of units) {
    if ('code' in unit) {
      const { inputs: read, outputs: made, attributes } = unit.code;
      const results = emit.own('Fused', read.map(resolve), made.map(typeOf), attributes);
      made.forEach((tensor, index) => {
        values.set(tensor, at(results, index));
      });
    } else if (unit.fusion !== undefined) {
      const result = at(unit.node.results, 0);
      const type = typeOf(result);
      values.set(result, { ...unit.fusion.lower(emit, resolve, type), dtype: type.dtype });
    } else if (unit.node.op === 'call') {
      throw new GraphError(`${graph.name}: a call was not inlined`);
    } else if (unit.node.op !== 'input') {
      lowerNode(emit, unit.node, values, used);
    }
  }
  const [first, ...others] = units.filter((unit) => 'code' in unit || unit.node.op !== 'input');
  return {
    whole: first !== undefined && others.length === 0 && 'code' in first ? first.code : undefined,
    outputs: declareOutputs(emit, outputs, values, declared),
    model: emit.model.finish(),
    inputs,
    bytes: emit.bytes,
  };
}

/** Inputs whose memory outputs may take over, as [output, input] indices, when one operation makes them all. */
function overwrites(graph: Graph, { inputs, outputs, inPlace }: FusedCode): (readonly [number, number])[] {
  const indexOf = (tensors: readonly Tensor[], wanted: Tensor) =>
    tensors.findIndex(({ node, index }) => node === wanted.node && index === wanted.index);
  return inPlace.map(([output, input]) => [
    indexOf(graph.outputs, at(outputs, output)),
    indexOf(graph.inputs, at(inputs, input)),
  ]);
}

/**
 * Names the outputs. A model may not give back an input, nor one value twice: those are copied. On the CPU a value that
 * was reshaped last is given in its shape before: the reshaping would copy it.
 */
function declareOutputs(
  emit: Emitter,
  outputs: readonly Tensor[],
  values: Map<Tensor, Value>,
  declared: (shape: Shape) => readonly (number | string)[],
): Fetch[] {
  const names = new Set<string>();
  return outputs.map((output) => {
    const border = borderType(output.dtype, emit.device);
    const found = lookUp(values, output);
    const value = border === holdingType(output.dtype) ? found : emit.castTo(found, border, output.dtype);
    const source = emit.device === 'cpu' ? emit.unreshaped(value) : value;
    const isTaken = names.has(source.name) || !emit.model.isMade(source.name);
    const { name, shape } = isTaken ? emit.op('Identity', [value], value) : source;
    emit.model.output(name, border, declared(shape));
    names.add(name);
    return {
      name,
      type: border === 'float' ? 'float32' : border,
      modelShape: shape,
      shape: output.shape,
    };
  });
}

function lowerNode<K extends Exclude<Op, StructuralOp>>(
  emit: Emitter,
  node: NodeOf<K>,
  values: Map<Tensor, Value>,
  used: Map<Tensor, true>,
): void {
  const lowering: Lowering<K> = lowerings[node.op];
  const read = readOperands(node as unknown as Node);
  const operands = operandsOf(node as unknown as Node).map((operand) =>
    read.includes(operand) ? lookUp(values, operand) : { ...typeOf(operand), name: '' },
  );
  const results = resultsOf(node as unknown as Node);
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

function lookUp(values: Map<Tensor, Value>, tensor: Tensor): Value {
  const value = values.get(tensor);
  if (value === undefined)
    throw new GraphError(`result ${tensor.index} of ${tensor.node.op} was not lowered`);
  return value;
}

function typeOf({ shape, dtype }: TensorType): TensorType {
  return { shape, dtype };
}
