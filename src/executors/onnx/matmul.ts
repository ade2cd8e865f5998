import { at, elementCount, type TensorType } from '../../tensor/shape.ts';
import type { Attributes } from '../../tensor/vocabulary.ts';
import { lowerKernelGradient, lowerRows } from './convolution.ts';
import type { Emitter, Value } from './emitter.ts';
import { lowerRounded, mostAxes } from './rounded.ts';

/** Whether a product is one of two matrices, the batch of the left one being more rows. */
export function isGemm(a: TensorType, b: TensorType, { transposeA }: Attributes<'matmul'>): boolean {
  return b.shape.length === 2 && (a.shape.length === 2 || !transposeA);
}

/** Matrix product, plus a vector for each row if given: Gemm where both sides are matrices, else a batched product. */
export function lowerMatmul(
  emit: Emitter,
  a: Value,
  b: Value,
  attributes: Attributes<'matmul'>,
  result: TensorType,
  bias?: Value,
): Value {
  const { transposeA, transposeB } = attributes;
  const rounded = lowerRounded(emit, a, b, attributes, result, bias);
  if (rounded !== undefined) return rounded;
  if (bias === undefined && emit.ownOperators && isSquare(emit, a, b, attributes))
    return emit.square(transposeA && !transposeB ? emit.transposed(a) : a);
  if (!isGemm(a, b, attributes)) return batchedMatmul(emit, a, b, { ...attributes, scale: 1 }, result);
  if (transposeA && !transposeB && bias === undefined && emit.ownOperators && isSumOfOuterProducts(result))
    return lowerKernelGradient(emit, asLine(emit, b), asLine(emit, a), oneTap, result);
  // ONNX Runtime's products with a transposed left side take longer than that and the transposition together.
  if (transposeA && emit.ownOperators)
    return lowerMatmul(emit, emit.transposed(a), b, { transposeA: false, transposeB }, result, bias);
  if (
    !transposeA &&
    emit.ownOperators &&
    elementCount(result.shape.slice(0, -1)) >= manyRows &&
    elementCount(result.shape) > 0 &&
    result.shape.length <= mostAxes
  )
    return lowerRows(emit, a, b, transposeB, result, bias);
  const rows = emit.reshape(a, [elementCount(a.shape.slice(0, -1)), at(a.shape, a.shape.length - 1)]);
  const shape = [elementCount(result.shape.slice(0, -1)), at(result.shape, result.shape.length - 1)];
  const gemm = (left: Value, right: Value, added?: Value) =>
    emit.op(
      'Gemm',
      added === undefined ? [left, right] : [left, right, added],
      { shape, dtype: result.dtype },
      { transA: Number(transposeA), transB: Number(transposeB) },
    );
  if (emit.device !== 'cpu' || !dependsOnThreads(rows, attributes, shape))
    return emit.reshape(gemm(rows, b, bias), result.shape);
  const inner = at(rows.shape, 1);
  const piece = (from: number, added?: Value) => {
    const to = Math.min(inner, from + summedAtOnce);
    return gemm(emit.slice(rows, 1, from, to), emit.slice(b, transposeB ? 1 : 0, from, to), added);
  };
  let sum = piece(0, bias);
  for (let from = summedAtOnce; from < inner; from += summedAtOnce) sum = piece(from, sum);
  return emit.reshape(sum, result.shape);
}

/** Smallest matrices whose square is made by half: of few rows the diagonal's tiles are nearly all. */
const squareRows = 96;

/** Whether a product is of a matrix and its transpose: the result is symmetric. */
function isSquare(
  emit: Emitter,
  a: Value,
  b: Value,
  { transposeA, transposeB }: Attributes<'matmul'>,
): boolean {
  const [rows = 0, inner = 0] = transposeA ? a.shape.slice(-2).reverse() : a.shape.slice(-2);
  const isWithTranspose = transposeA !== transposeB || emit.isSymmetric(a);
  return (
    a.name === b.name && isWithTranspose && a.shape.length <= mostAxes && rows >= squareRows && inner > 0
  );
}

/** Rows from which on our own products take three quarters of the time of ONNX Runtime's; with fewer they take as long. */
const manyRows = 1024;

/** Elements of a product up to which summing it over rows is faster than ONNX Runtime's products: sums stay in the second cache. */
const mostSums = 200_000;

/** Whether a product with a transposed left side is better summed row by row: such as the gradient of a small layer. */
function isSumOfOuterProducts({ shape }: TensorType): boolean {
  return elementCount(shape) <= mostSums;
}

/** The kernel's gradient of a 1x1 convolution is a product with a transposed left side. */
const oneTap = { strides: [1], padding: [[0, 0]], kernelSize: [1] } as const;

function asLine(emit: Emitter, x: Value): Value {
  return emit.reshape(x, [1, ...x.shape]);
}

/** Inner values that ONNX Runtime sums in one go, whatever the columns. */
const summedAtOnce = 128;
/** Columns of which four threads get so few that they sum in larger pieces than one thread does. */
const fewColumns = 256;
/** Most pieces: enough for layers and the gradient of shared modulations, not for gradients over all tokens. */
const mostPieces = 16;

/**
 * Whether the bits of a product would depend on the number of threads: with fewer rows than columns the columns are shared
 * out, and 64 of them or fewer are summed in larger pieces. Summed in pieces that all take whole, the bits agree.
 */
function dependsOnThreads(
  { shape }: Value,
  { transposeA }: Attributes<'matmul'>,
  [rows = 0, columns = 0]: readonly number[],
): boolean {
  const inner = at(shape, 1);
  const isLayer = !transposeA && inner > summedAtOnce && inner <= mostPieces * summedAtOnce;
  return isLayer && rows < columns && columns <= fewColumns;
}

/** scale a b over the last two axes with leading axes broadcast; either side may be read transposed. */
export function batchedMatmul(
  emit: Emitter,
  a: Value,
  b: Value,
  { transposeA = false, transposeB = false, scale = 1 },
  result: TensorType,
): Value {
  if (emit.device === 'cpu') {
    if (!transposeA && !transposeB && scale === 1) return emit.op('MatMul', [a, b], result);
    const attributes = { transA: Number(transposeA), transB: Number(transposeB), alpha: { float: scale } };
    return emit.contrib('FusedMatMul', [a, b], result, attributes);
  }
  const [left, right] = [transposeA ? swapped(emit, a) : a, transposeB ? swapped(emit, b) : b];
  const scaled = scale === 1 ? left : emit.elementwise('Mul', left, emit.scalar(scale));
  return emit.op('MatMul', [scaled, right], result);
}

function swapped(emit: Emitter, x: Value): Value {
  const rank = x.shape.length;
  return emit.transpose(
    x,
    Array.from({ length: rank }, (_, axis) => (axis < rank - 2 ? axis : 2 * rank - 3 - axis)),
  );
}
