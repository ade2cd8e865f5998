import { at, elementCount, rowMajorStrides, type TensorType } from '../../tensor/shape.ts';
import type { Attributes, Op, Operands } from '../../tensor/vocabulary.ts';
import { attention, attentionGradient, rotary } from './attention.ts';
import { convolution, convolutionInputGradient, convolutionKernelGradient } from './convolution.ts';
import { broadcastReader, forEachIndex, positionOf, type Values } from './values.ts';

/** Computes an operation in float64: values of the operands in, one array per result out. */
export type Kernel<K extends Op> = (
  operands: Operands<K, Values>,
  attributes: Attributes<K>,
  results: readonly TensorType[],
) => readonly Float64Array[];

/** An operation that the executor does itself: it gives inputs and follows calls. */
export type StructuralOp = 'input' | 'call';

/** The reference kernel of every operation: plain loops, written to be read, not to be fast. */
export const kernels: { readonly [K in Exclude<Op, StructuralOp>]: Kernel<K> } = {
  constant: (_, { shape, values }) => {
    const data = new Float64Array(elementCount(shape));
    return [values.length === 1 ? data.fill(at(values, 0)) : Float64Array.from(values)];
  },

  neg: unary((x) => -x),
  abs: unary(Math.abs),
  exp: unary(Math.exp),
  log: unary(Math.log),
  sqrt: unary(Math.sqrt),
  sin: unary(Math.sin),
  cos: unary(Math.cos),
  tanh: unary(Math.tanh),
  sigmoid: unary(sigmoid),
  gelu: unary((x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))),
  silu: unary((x) => x * sigmoid(x)),

  add: binary((a, b) => a + b),
  sub: binary((a, b) => a - b),
  mul: (operands, _, results) => {
    const product = at(results, 0).dtype === 'i32' ? Math.imul : (a: number, b: number) => a * b;
    return [elementwise(operands, results, ([a = 0, b = 0]) => product(a, b))];
  },
  div: binary((a, b) => a / b),
  maximum: binary(Math.max),
  minimum: binary(Math.min),
  equal: binary((a, b) => Number(a === b)),
  less: binary((a, b) => Number(a < b)),
  where: (operands, _, results) => [
    elementwise(operands, results, ([condition = 0, a = 0, b = 0]) => (condition ? a : b)),
  ],
  cast: ([x], { dtype }) => {
    if (dtype === 'i32') return [x.data.map(Math.trunc)];
    return [dtype === 'bool' ? x.data.map((value) => Number(value !== 0)) : x.data];
  },

  sum: ([x], { axes }, results) => [reduce(x, axes, results, 0, (total, value) => total + value)],
  max: ([x], { axes }, results) => [reduce(x, axes, results, -Infinity, Math.max)],
  softmax: rowwise((row) => {
    const maximum = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const exponentials = row.map((value) => Math.exp(value - maximum));
    const total = sum(exponentials);
    return exponentials.map((value) => value / total);
  }),
  layerNorm: rowwise((row, { epsilon }: Attributes<'layerNorm'>) => {
    const mean = sum(row) / row.length;
    const deviation = Math.sqrt(sum(row.map((value) => (value - mean) ** 2)) / row.length + epsilon);
    return row.map((value) => (value - mean) / deviation);
  }),
  rmsNorm: rowwise((row, { epsilon }: Attributes<'rmsNorm'>) => {
    const rootMeanSquare = Math.sqrt(sum(row.map((value) => value * value)) / row.length + epsilon);
    return row.map((value) => value / rootMeanSquare);
  }),

  matmul: ([a, b], { transposeA, transposeB }, results) => {
    const { shape } = at(results, 0);
    const rank = shape.length;
    const inner = at(a.shape, a.shape.length - (transposeA ? 2 : 1));
    const readA = broadcastReader({ ...a, shape: [...a.shape.slice(0, -2), 1, 1] }, shape);
    const readB = broadcastReader({ ...b, shape: [...b.shape.slice(0, -2), 1, 1] }, shape);
    const [rowA, columnA] = matrixStrides(a, transposeA);
    const [rowB, columnB] = matrixStrides(b, transposeB);
    const [sizeA, sizeB] = [elementCount(a.shape.slice(-2)), elementCount(b.shape.slice(-2))];
    const y = new Float64Array(elementCount(shape));
    forEachIndex(shape, (index, position) => {
      const startA = readA(index) * sizeA + at(index, rank - 2) * rowA;
      const startB = readB(index) * sizeB + at(index, rank - 1) * columnB;
      let total = 0;
      for (let k = 0; k < inner; k++)
        total += at(a.data, startA + k * columnA) * at(b.data, startB + k * rowB);
      y[position] = total;
    });
    return [y];
  },
  convolution,
  convolutionInputGradient,
  convolutionKernelGradient,
  attention,
  attentionGradient,
  rotary,

  reshape: ([x]) => [x.data],
  transpose: ([x], { permutation }, results) => {
    const strides = rowMajorStrides(x.shape);
    const read = permutation.map((axis) => at(strides, axis));
    return [
      fill(results, (index) =>
        at(
          x.data,
          read.reduce((position, stride, axis) => position + stride * at(index, axis), 0),
        ),
      ),
    ];
  },
  broadcast: ([x], _, results) => {
    const read = broadcastReader(x, at(results, 0).shape);
    return [fill(results, (index) => at(x.data, read(index)))];
  },
  slice: ([x], { starts }, results) => [
    fill(results, (index) =>
      at(
        x.data,
        positionOf(
          index.map((i, axis) => i + at(starts, axis)),
          x.shape,
        ),
      ),
    ),
  ],
  concat: (operands, { axis }, results) => {
    const { shape } = at(results, 0);
    const y = new Float64Array(elementCount(shape));
    let start = 0;
    for (const x of operands) {
      forEachIndex(x.shape, (index, position) => {
        const target = index.map((i, a) => (a === axis ? i + start : i));
        y[positionOf(target, shape)] = at(x.data, position);
      });
      start += at(x.shape, axis);
    }
    return [y];
  },
  pad: ([x], { before }, results) => {
    const { shape } = at(results, 0);
    const y = new Float64Array(elementCount(shape));
    forEachIndex(x.shape, (index, position) => {
      y[
        positionOf(
          index.map((i, axis) => i + at(before, axis)),
          shape,
        )
      ] = at(x.data, position);
    });
    return [y];
  },

  gather: ([table, indices]) => {
    const rowSize = elementCount(table.shape.slice(1));
    const y = new Float64Array(indices.data.length * rowSize);
    indices.data.forEach((row, i) => {
      checkRow(row, at(table.shape, 0));
      y.set(table.data.subarray(row * rowSize, (row + 1) * rowSize), i * rowSize);
    });
    return [y];
  },
  scatterAdd: ([indices, updates], { rows }, results) => {
    const rowSize = elementCount(at(results, 0).shape.slice(1));
    const y = new Float64Array(rows * rowSize);
    indices.data.forEach((row, i) => {
      checkRow(row, rows);
      for (let j = 0; j < rowSize; j++)
        y[row * rowSize + j] = at(y, row * rowSize + j) + at(updates.data, i * rowSize + j);
    });
    return [y];
  },

  allReduce: alone,
  allGather: alone,
  reduceScatter: alone,
};

function unary(f: (x: number) => number): Kernel<'neg'> {
  return ([x]) => [x.data.map((value) => f(value))];
}

function binary(f: (a: number, b: number) => number): Kernel<'add'> {
  return (operands, _, results) => [elementwise(operands, results, ([a = 0, b = 0]) => f(a, b))];
}

function elementwise(
  operands: readonly Values[],
  results: readonly TensorType[],
  f: (values: number[]) => number,
): Float64Array {
  const readers = operands.map((operand) => broadcastReader(operand, at(results, 0).shape));
  return fill(results, (index) => f(operands.map(({ data }, i) => at(data, at(readers, i)(index)))));
}

function fill(results: readonly TensorType[], value: (index: readonly number[]) => number): Float64Array {
  const { shape } = at(results, 0);
  const y = new Float64Array(elementCount(shape));
  forEachIndex(shape, (index, position) => {
    y[position] = value(index);
  });
  return y;
}

function reduce(
  x: Values,
  axes: readonly number[],
  results: readonly TensorType[],
  initial: number,
  combine: (accumulator: number, value: number) => number,
): Float64Array {
  const kept = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const read = broadcastReader({ ...x, shape: kept }, x.shape);
  const y = new Float64Array(elementCount(at(results, 0).shape)).fill(initial);
  forEachIndex(x.shape, (index, position) => {
    const target = read(index);
    y[target] = combine(at(y, target), at(x.data, position));
  });
  return y;
}

function rowwise<A>(
  f: (row: Float64Array, attributes: A) => Float64Array,
): ([x]: readonly [Values], attributes: A) => [Float64Array] {
  return ([x], attributes) => {
    const length = at(x.shape, x.shape.length - 1);
    const y = new Float64Array(x.data.length);
    for (let start = 0; start < y.length; start += length)
      y.set(f(x.data.subarray(start, start + length), attributes), start);
    return [y];
  };
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Strides along rows and columns of a matrix that may be read transposed. */
function matrixStrides({ shape }: TensorType, transposed: boolean): readonly [row: number, column: number] {
  const width = at(shape, shape.length - 1);
  return transposed ? [1, width] : [width, 1];
}

function checkRow(row: number, rows: number): void {
  if (row < 0 || row >= rows) throw new RangeError(`index ${row} is outside a table of ${rows} rows`);
}

/** Collectives of a single process. */
function alone([x]: readonly [Values]): readonly Float64Array[] {
  return [x.data];
}
