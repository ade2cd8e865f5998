import { at, elementCount, sameShape, type TensorType } from '../../tensor/shape.ts';
import type { Attributes } from '../../tensor/vocabulary.ts';
import type { Emitter, Value } from './emitter.ts';

/** Multiplications of a pair of matrices from which on one pair after the other is as fast; many smaller ones stay float32. */
const worthwhile = 2 ** 15;

/** Our operators know operands of no more axes. */
export const mostAxes = 8;

/**
 * A product by our own operators that round operands to bfloat16, plus a vector for each row if given; undefined where the
 * target's precision is another, or where matrices are small and many, or of a shape that they do not know.
 */
export function lowerRounded(
  emit: Emitter,
  a: Value,
  b: Value,
  { transposeA, transposeB }: Attributes<'matmul'>,
  result: TensorType,
  bias?: Value,
): Value | undefined {
  const sizes = emit.roundsProducts ? sizesOf(a, b, transposeA, result) : undefined;
  if (sizes === undefined) return undefined;
  if (transposeA && !transposeB && bias === undefined) {
    const attributes = { sizes: listOf(sizes), result: result.shape };
    return emit.own('RoundedSums', [a, b], [result], attributes)[0];
  }
  const rows = transposeA ? emit.transposed(a) : a;
  return emit.own('RoundedProduct', bias === undefined ? [rows, b] : [rows, b, bias], [result], {
    sizes: listOf(sizes),
    result: result.shape,
    shared: [Number(b.shape.length === 2)],
    transposed: [Number(transposeB)],
    biased: [Number(bias !== undefined)],
  })[0];
}

/** Products of so many pairs of matrices, [rows, inner] and [inner, columns]. */
interface Sizes {
  readonly batch: number;
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
}

function listOf({ batch, rows, inner, columns }: Sizes): number[] {
  return [batch, rows, inner, columns];
}

/** Leading axes of a are rows where b is one matrix; else both have the same ones, which are pairs of matrices. */
function sizesOf(a: Value, b: Value, transposeA: boolean, result: TensorType): Sizes | undefined {
  const isOne = b.shape.length === 2;
  const isKnown =
    [a, b, result].every(({ shape, dtype }) => dtype === 'f32' && shape.length <= mostAxes) &&
    (isOne ? a.shape.length === 2 || !transposeA : sameShape(a.shape.slice(0, -2), b.shape.slice(0, -2)));
  const rank = result.shape.length;
  const lead = elementCount(result.shape.slice(0, -2));
  const height = at(result.shape, rank - 2);
  const inner = at(a.shape, a.shape.length - (transposeA ? 2 : 1));
  const columns = at(result.shape, rank - 1);
  const [batch, rows] = isOne ? [1, lead * height] : [lead, height];
  const multiplications = rows * inner * columns;
  const isWorthwhile = batch * multiplications > 0 && (batch === 1 || multiplications >= worthwhile);
  return isKnown && isWorthwhile ? { batch, rows, inner, columns } : undefined;
}
