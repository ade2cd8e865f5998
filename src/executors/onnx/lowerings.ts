import type { DType } from '../../tensor/dtype.ts';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '../../tensor/float16.ts';
import { at, elementCount, type Shape, type TensorType } from '../../tensor/shape.ts';
import type { Attributes, Op, Operands } from '../../tensor/vocabulary.ts';
import { lowerAttention, lowerAttentionGradient, lowerRotary } from './attention.ts';
import { lowerConvolution, lowerInputGradient, lowerKernelGradient } from './convolution.ts';
import { type Emitter, holdingType, type Lowered, type Value } from './emitter.ts';
import { lowerMatmul } from './matmul.ts';
import { mostAxes } from './rounded.ts';

/** Writes an operation as ONNX nodes and returns one value per result; an unused result may be left undefined. */
export type Lowering<K extends Op> = (
  emit: Emitter,
  operands: Operands<K, Value>,
  node: Lowered<K>,
) => readonly (Value | undefined)[];

/** Operations that are gone before lowering: inputs are declared, calls become runs of their own or are inlined. */
export type StructuralOp = 'input' | 'call';

/** The ONNX form of every operation. */
export const lowerings: { readonly [K in Exclude<Op, StructuralOp>]: Lowering<K> } = {
  constant: (emit, _, { attributes: { shape, dtype, values: exact } }) => {
    const values = roundedTo(dtype, exact);
    if (values.length !== 1)
      return [{ name: emit.model.constant(holdingType(dtype), shape, values), shape, dtype }];
    const scalar: Value = { name: emit.model.constant(holdingType(dtype), [], values), shape: [], dtype };
    return [shape.length === 0 ? scalar : expanded(emit, scalar, shape)];
  },

  neg: unary('Neg'),
  abs: unary('Abs'),
  exp: unary('Exp'),
  log: unary('Log'),
  sqrt: unary('Sqrt'),
  sin: unary('Sin'),
  cos: unary('Cos'),
  tanh: unary('Tanh'),
  sigmoid: unary('Sigmoid'),
  gelu: unary('Gelu', { approximate: 'tanh' }),
  silu: (emit, [x]) => [
    emit.device === 'cpu'
      ? emit.contrib('QuickGelu', [x], x, { alpha: { float: 1 } })
      : emit.elementwise('Mul', x, emit.op('Sigmoid', [x], x)),
  ],

  add: binary('Add'),
  sub: binary('Sub'),
  mul: binary('Mul'),
  div: binary('Div'),
  maximum: binary('Max'),
  minimum: binary('Min'),
  equal: binary('Equal'),
  less: binary('Less'),
  where: (emit, operands, { results }) => {
    const [condition, a, b] = operands;
    if (a.dtype !== 'bool') return [emit.op('Where', operands, at(results, 0))];
    const chosen = emit.op(
      'Where',
      [condition, emit.castTo(a, 'int32', 'i32'), emit.castTo(b, 'int32', 'i32')],
      { ...at(results, 0), dtype: 'i32' },
    );
    return [emit.castTo(chosen, 'bool', 'bool')];
  },
  cast: (emit, [x], { attributes: { dtype } }) => {
    if (dtype !== 'f16' && dtype !== 'bf16') return [emit.castTo(x, holdingType(dtype), dtype)];
    const narrow = emit.castTo(x, dtype === 'f16' ? 'float16' : 'bfloat16', dtype);
    return [emit.castTo(narrow, 'float', dtype)];
  },

  sum,
  max: reduction('ReduceMax'),
  softmax: unary('Softmax', { axis: -1 }),
  layerNorm: (emit, [x], { attributes }) => [lowerNorm(emit, 'layerNorm', x, attributes)],
  rmsNorm: (emit, [x], { attributes }) => [lowerNorm(emit, 'rmsNorm', x, attributes)],

  matmul: (emit, [a, b], { attributes, results }) => [lowerMatmul(emit, a, b, attributes, at(results, 0))],
  convolution: (emit, [x, kernel], { attributes, results }) => [
    lowerConvolution(emit, x, kernel, attributes, at(results, 0)),
  ],
  convolutionInputGradient: (emit, [dy, kernel], { attributes, results }) => [
    lowerInputGradient(emit, dy, kernel, attributes, at(results, 0)),
  ],
  convolutionKernelGradient: (emit, [x, dy], { attributes, results }) => [
    lowerKernelGradient(emit, x, dy, attributes, at(results, 0)),
  ],
  attention: lowerAttention,
  attentionGradient: lowerAttentionGradient,
  rotary: lowerRotary,

  reshape: (emit, [x], { results }) => [emit.reshape(x, at(results, 0).shape)],
  transpose: (emit, [x], { attributes: { permutation } }) => [emit.transpose(x, permutation)],
  broadcast: (emit, [x], { results }) => [expanded(emit, x, at(results, 0).shape)],
  slice: (emit, [x], { attributes: { starts, ends }, results }) => {
    const axes = x.shape.map((_, axis) => axis);
    return [
      emit.op('Slice', [x, emit.integers(starts), emit.integers(ends), emit.integers(axes)], at(results, 0)),
    ];
  },
  concat: (emit, operands, { attributes: { axis } }) => [emit.concat(operands, axis)],
  pad: (emit, [x], { attributes: { before, after }, results }) => [
    emit.op('Pad', [x, emit.integers([...before, ...after])], at(results, 0)),
  ],

  gather: (emit, operands, { results }) => [emit.op('Gather', operands, at(results, 0), { axis: 0 })],
  scatterAdd: (emit, [indices, updates], { results }) => [
    lowerScatterAdd(emit, indices, updates, at(results, 0)),
  ],

  allReduce: alone,
  allGather: alone,
  reduceScatter: alone,
};

/** Most elements of a one-hot matrix in {@link lowerScatterAdd}. */
const oneHotElements = 2 ** 24;

/**
 * A one-hot matrix times the updates; for tables too large for it ScatterElements, which is slow but adds in order.
 * Not ScatterND: its CPU kernel adds in parallel and loses updates of the same row. WebGPU has neither.
 */
function lowerScatterAdd(emit: Emitter, indices: Value, updates: Value, result: TensorType): Value {
  const rows = at(result.shape, 0);
  const count = elementCount(indices.shape);
  const width = elementCount(result.shape.slice(1));
  const flat = emit.reshape(updates, [count, width]);
  const type = { shape: [rows, width], dtype: result.dtype };
  if (emit.device === 'webgpu' || rows * count <= oneHotElements) {
    const numbers: Value = {
      name: emit.model.constant(
        'int32',
        [rows, 1],
        Array.from({ length: rows }, (_, row) => row),
      ),
      shape: [rows, 1],
      dtype: 'i32',
    };
    const isAt = emit.op('Equal', [numbers, emit.reshape(indices, [1, count])], {
      shape: [rows, count],
      dtype: 'bool',
    });
    return emit.reshape(emit.op('MatMul', [emit.castTo(isAt, 'float', 'f32'), flat], type), result.shape);
  }
  const positions = emit.reshape(emit.castTo(indices, 'int64', 'i32'), [count, 1]);
  const table = expanded(emit, emit.scalar(0), type.shape);
  const sums = emit.op('ScatterElements', [table, expanded(emit, positions, [count, width]), flat], type, {
    axis: 0,
    reduction: 'add',
  });
  return emit.reshape(sums, result.shape);
}

/** Values as their dtype has them: 16-bit floats are held in float32, but only some float32 are 16-bit floats. */
function roundedTo(dtype: DType, values: readonly number[]): readonly number[] {
  if (dtype === 'f16') return [...f16ToF32(f32ToF16(Float32Array.from(values)))];
  return dtype === 'bf16' ? [...bf16ToF32(f32ToBf16(Float32Array.from(values)))] : values;
}

/** x repeated to a shape. */
function expanded(emit: Emitter, x: Value, shape: Shape): Value {
  return emit.op('Expand', [x, emit.integers(shape)], { shape, dtype: x.dtype });
}

/** A normalisation over the last axis, times `scale`, which ONNX insists on; default ones. */
export function lowerNorm(
  emit: Emitter,
  op: 'layerNorm' | 'rmsNorm',
  x: Value,
  { epsilon }: Attributes<'rmsNorm'>,
  scale = ones(emit, x),
): Value {
  // The simplified form is ONNX Runtime's older kernel for the same thing: 1.6 times faster on the CPU.
  const rms = emit.device === 'cpu' ? 'SimplifiedLayerNormalization' : 'RMSNormalization';
  const type = op === 'layerNorm' ? 'LayerNormalization' : rms;
  return emit.op(type, [x, scale], x, { axis: -1, epsilon: { float: epsilon } });
}

function ones(emit: Emitter, x: Value): Value {
  const width = at(x.shape, x.shape.length - 1);
  const name = emit.model.constant('float', [width], new Array<number>(width).fill(1));
  return { name, shape: [width], dtype: x.dtype };
}

interface Results {
  readonly results: readonly TensorType[];
}

function unary(
  type: string,
  attributes: Readonly<Record<string, number | string>> = {},
): (emit: Emitter, operands: readonly [Value]) => readonly Value[] {
  return (emit, [x]) => [emit.op(type, [x], x, attributes)];
}

function binary(
  type: string,
): (emit: Emitter, operands: readonly [Value, Value], node: Results) => readonly Value[] {
  return (emit, operands, { results }) => [emit.op(type, operands, at(results, 0))];
}

function reduction(
  type: string,
): (
  emit: Emitter,
  operands: readonly [Value],
  node: Results & { attributes: Attributes<'sum'> },
) => readonly Value[] {
  return (emit, [x], { attributes: { axes, keepDims }, results }) => {
    // ONNX reads an empty list as all axes; we mean none.
    if (axes.length === 0) return [x];
    return [emit.op(type, [x, emit.integers(axes)], at(results, 0), { keepdims: Number(keepDims) })];
  };
}

const reduceSum = reduction('ReduceSum');

/** Sums over all axes but the last, which gradients of biases are, by our own operator: ONNX Runtime takes three times as long. */
function sum(
  emit: Emitter,
  operands: readonly [Value],
  node: Results & { attributes: Attributes<'sum'> },
): readonly Value[] {
  const [x] = operands;
  const columns = x.shape.at(-1) ?? 0;
  const isOfColumns =
    node.attributes.axes.length === x.shape.length - 1 && !node.attributes.axes.includes(x.shape.length - 1);
  const isWorthwhile = columns >= 16 && elementCount(x.shape) >= 256 * columns;
  if (!emit.ownOperators || !isOfColumns || !isWorthwhile || x.dtype !== 'f32' || x.shape.length > mostAxes)
    return reduceSum(emit, operands, node);
  const sums = emit.own('ColumnSums', [x], [{ shape: [columns], dtype: 'f32' }])[0];
  return [emit.reshape(sums, at(node.results, 0).shape)];
}

/** Collectives of a single process. */
function alone(_: Emitter, [x]: readonly [Value]): readonly Value[] {
  return [x];
}
