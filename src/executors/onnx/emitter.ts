import type { DType } from '../../tensor/dtype.ts';
import { elementCount, type Shape, sameShape, type TensorType } from '../../tensor/shape.ts';
import type { Attributes, Op } from '../../tensor/vocabulary.ts';
import { type OnnxAttribute, OnnxModel, type OnnxType, onnxTypes } from './model.ts';

/** Where a model will run: lowering avoids what a provider lacks and uses what it does best. */
export type OnnxDevice = 'cpu' | 'wasm' | 'webgpu';

/** Operators of `native/`; `Fused` is for chains of elementwise operations, see `fused/code.ts`. */
export type OwnOperator =
  | 'Fused'
  | 'Transposed'
  | 'Square'
  | 'ColumnSums'
  | 'Convolution'
  | 'KernelGradient'
  | 'Attention'
  | 'AttentionGradient'
  | 'RoundedProduct'
  | 'RoundedSums';

/** What lowering must know of the machine. */
export interface LoweringTarget {
  readonly device: OnnxDevice;
  /** Whether models may use our own operators, those of `native/`. */
  readonly ownOperators: boolean;
  /** Whether products of matrices, those of attention too, round their operands to bfloat16, which only our own operators do. */
  readonly roundsProducts: boolean;
  /** Attention scores are computed in parts of at most this many bytes, so that memory does not grow with length squared. */
  readonly scoreBytes: number;
}

/** A tensor of our graph as a value of the ONNX model. */
export interface Value extends TensorType {
  readonly name: string;
}

/**
 * How ONNX Runtime holds each dtype. Its JavaScript API has no bfloat16 and its CPU provider gains nothing from
 * float16, so both are held in float32: values are rounded where they are cast, arithmetic between is exact float32.
 */
const heldAs: { readonly [D in Exclude<DType, 'f8e4m3' | 'f8e5m2'>]: 'float' | 'int32' | 'bool' } = {
  f32: 'float',
  f16: 'float',
  bf16: 'float',
  i32: 'int32',
  bool: 'bool',
};

/** How ONNX Runtime holds a dtype: see {@link heldAs}. Throws TypeError for the reserved 8-bit floats. */
export function holdingType(dtype: DType): 'float' | 'int32' | 'bool' {
  if (dtype === 'f8e4m3' || dtype === 'f8e5m2')
    throw new TypeError(`${dtype} is reserved: ONNX Runtime cannot hold it`);
  return heldAs[dtype];
}

/** A node being lowered: what a {@link Lowering} may know of it besides its operands. */
export interface Lowered<K extends Op> {
  readonly attributes: Attributes<K>;
  readonly results: readonly TensorType[];
  /** Whether anything reads each result. */
  readonly used: readonly boolean[];
}

/**
 * How values of a dtype cross a model's border. WebGPU buffers hold no single bytes, so booleans travel as int32 there;
 * within a model they are booleans.
 */
export function borderType(dtype: DType, device: OnnxDevice): 'float' | 'int32' | 'bool' {
  const type = holdingType(dtype);
  return type === 'bool' && device === 'webgpu' ? 'int32' : type;
}

/** What lowering rules write with: ONNX nodes over our values, shapes carried along. */
export class Emitter {
  readonly model = new OnnxModel();
  readonly device: OnnxDevice;
  readonly scoreBytes: number;
  readonly ownOperators: boolean;
  readonly roundsProducts: boolean;
  /** Bytes of every value made so far: what the model would need if it never reused memory. */
  bytes = 0;
  /** What each reshaped value was before. */
  private readonly reshaped = new Map<string, Value>();
  /** Names of matrices that are made as squares. */
  private readonly symmetric = new Set<string>();

  constructor({ device, scoreBytes, ownOperators, roundsProducts }: LoweringTarget) {
    this.device = device;
    this.ownOperators = ownOperators;
    this.roundsProducts = ownOperators && roundsProducts;
    this.scoreBytes = scoreBytes;
  }

  /** Adds a node with a single result of the given type. */
  op(
    type: string,
    operands: readonly Value[],
    result: TensorType,
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): Value {
    return this.value(this.names(type, operands, attributes)[0], result);
  }

  /** {@link op} for an operator of ONNX Runtime's own. */
  contrib(
    type: string,
    operands: readonly Value[],
    result: TensorType,
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): Value {
    const names = operands.map(({ name }) => name);
    return this.value(this.model.node(type, names, attributes, { domain: 'com.microsoft' })[0], result);
  }

  /** A node of one of our own operators, those of `native/`, with its results. */
  own<const Results extends readonly TensorType[]>(
    type: OwnOperator,
    operands: readonly Value[],
    results: Results,
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): { [I in keyof Results]: Value } {
    const inputs = operands.map(({ name }) => name);
    const names = this.model.node(type, inputs, attributes, { domain: 'zoetrope', results: results.length });
    // A mapped tuple is as long as the results; only TypeScript does not know it of `map`.
    return results.map((result, index) => this.value(names[index], result)) as {
      [I in keyof Results]: Value;
    };
  }

  /** x with its last two axes exchanged, by our own operator. */
  transposed(x: Value): Value {
    const rank = x.shape.length;
    const shape = [...x.shape.slice(0, -2), x.shape[rank - 1] ?? 1, x.shape[rank - 2] ?? 1];
    return this.own('Transposed', [x], [{ shape, dtype: x.dtype }])[0];
  }

  /** x x^T over the last two axes, by our own operator. */
  square(x: Value): Value {
    const rows = x.shape.at(-2) ?? 1;
    const result = this.own('Square', [x], [{ shape: [...x.shape.slice(0, -1), rows], dtype: x.dtype }])[0];
    this.symmetric.add(result.name);
    return result;
  }

  /** Whether x is known to be its own transpose. */
  isSymmetric({ name }: Value): boolean {
    return this.symmetric.has(name);
  }

  /** A float scalar. */
  scalar(value: number): Value {
    return { name: this.model.constant('float', [], [value]), shape: [], dtype: 'f32' };
  }

  /** A list of int64, as shapes and axes are given. */
  integers(values: readonly number[]): Value {
    return {
      name: this.model.constant('int64', [values.length], values),
      shape: [values.length],
      dtype: 'i32',
    };
  }

  /** x under another shape. */
  reshape(x: Value, shape: Shape): Value {
    if (sameShape(x.shape, shape)) return x;
    const result = this.op('Reshape', [x, this.integers(shape)], { shape, dtype: x.dtype }, { allowzero: 1 });
    this.reshaped.set(result.name, x);
    return result;
  }

  /** The value that x is a reshaping of, or x. */
  unreshaped(x: Value): Value {
    const before = this.reshaped.get(x.name);
    return before === undefined ? x : this.unreshaped(before);
  }

  /** x with its axes in another order. */
  transpose(x: Value, permutation: readonly number[]): Value {
    if (permutation.every((axis, index) => axis === index)) return x;
    return this.op(
      'Transpose',
      [x],
      { shape: permutation.map((axis) => x.shape[axis] ?? 0), dtype: x.dtype },
      { perm: permutation },
    );
  }

  /** Elements `start` <= i < `end` of one axis, every `step`-th. */
  slice(x: Value, axis: number, start: number, end: number, step = 1): Value {
    if (start === 0 && end === x.shape[axis] && step === 1) return x;
    const shape = x.shape.map((size, i) => (i === axis ? Math.ceil((end - start) / step) : size));
    const operands = [x, ...[[start], [end], [axis], [step]].map((values) => this.integers(values))];
    return this.op('Slice', operands, { shape, dtype: x.dtype });
  }

  /** Values one after the other along an axis. */
  concat(parts: readonly Value[], axis: number): Value {
    const [first, ...others] = parts;
    if (first === undefined) throw new RangeError('concat of nothing');
    if (others.length === 0) return first;
    const total = parts.reduce((sum, { shape }) => sum + (shape[axis] ?? 0), 0);
    return this.op(
      'Concat',
      parts,
      { shape: first.shape.map((size, i) => (i === axis ? total : size)), dtype: first.dtype },
      { axis },
    );
  }

  /** x in another ONNX element type, known to us as `dtype`. */
  castTo(x: Value, type: OnnxType, dtype: DType): Value {
    return this.op('Cast', [x], { shape: x.shape, dtype }, { to: onnxTypes[type] });
  }

  /** A broadcasting elementwise node of two operands. */
  elementwise(type: 'Add' | 'Sub' | 'Mul' | 'Div', a: Value, b: Value, shape: Shape = a.shape): Value {
    return this.op(type, [a, b], { shape, dtype: a.dtype });
  }

  /** Sum or maximum along the last axis, which stays with size 1. */
  reduceLast(type: 'ReduceSum' | 'ReduceMax' | 'ReduceMean', x: Value): Value {
    const shape = x.shape.map((size, axis) => (axis === x.shape.length - 1 ? 1 : size));
    return this.op(type, [x, this.integers([-1])], { shape, dtype: x.dtype }, { keepdims: 1 });
  }

  private names(
    type: string,
    operands: readonly Value[],
    attributes: Readonly<Record<string, OnnxAttribute>>,
  ): string[] {
    return this.model.node(
      type,
      operands.map(({ name }) => name),
      attributes,
    );
  }

  private value(name: string | undefined, { shape, dtype }: TensorType): Value {
    if (name === undefined) throw new RangeError('a node without results');
    this.bytes += 4 * elementCount(shape);
    return { name, shape, dtype };
  }
}
