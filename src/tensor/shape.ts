import type { DType } from './dtype.ts';

/** Sizes of a tensor's axes, outermost first; `[]` is a scalar. Every size is a non-negative integer. */
export type Shape = readonly number[];

/** What is known of a tensor without its values. */
export interface TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** A mistake in how a graph was built: wrong shapes, dtypes or attributes. The message names the operation. */
export class GraphError extends Error {
  override readonly name = 'GraphError';
}

/** Number of elements of `shape`. */
export function elementCount(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Distances in elements between neighbours along each axis, for a dense row-major layout of `shape`. */
export function rowMajorStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) {
    strides[axis] = at(strides, axis + 1) * at(shape, axis + 1);
  }
  return strides;
}

/** Whether two shapes have the same sizes in the same order. */
export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false;
  return true;
}

/** Size of `shape` at `axis`; a negative axis counts from the end. Throws {@link GraphError} when there is none. */
export function sizeAt(shape: Shape, axis: number): number {
  return at(shape, normalizeAxis(axis, shape.length));
}

/** `axis` as a non-negative index into `rank` axes. Throws {@link GraphError} when it is out of range. */
export function normalizeAxis(axis: number, rank: number): number {
  const normalized = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || normalized < 0 || normalized >= rank) {
    throw new GraphError(`axis ${axis} is outside a tensor of ${rank} axes; use ${-rank} to ${rank - 1}`);
  }
  return normalized;
}

/**
 * Shape of an elementwise operation: axes are aligned from the last; sizes must agree or be 1 (NumPy's rule).
 * Throws {@link GraphError} naming both shapes when they do not.
 */
export function broadcastShapes(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const sizeA = a[axis - rank + a.length] ?? 1;
    const sizeB = b[axis - rank + b.length] ?? 1;
    if (sizeA !== sizeB && sizeA !== 1 && sizeB !== 1) {
      throw new GraphError(`shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast`);
    }
    return sizeA === 1 ? sizeB : sizeA;
  });
}

/** `[2, 3]` for a shape. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

/** `f32[2, 3]` for a tensor's type. */
export function formatType({ shape, dtype }: TensorType): string {
  return `${dtype}${formatShape(shape)}`;
}

/** Names of axes in a string such as `'B T H D'`. */
export type AxisNames<Axes extends string> = Axes extends `${infer First} ${infer Rest}`
  ? First | AxisNames<Rest>
  : Axes;

/**
 * Asserts that `tensor` has one axis per name in `axes` and returns their sizes.
 *
 * A name that occurs twice, or that `known` already sizes, must have that one size; a number must be that size.
 * `expectShape(q, 'B T H 64', { B })` checks rank 4, the batch against `B`, and a head size of 64.
 *
 * @throws GraphError naming `what`, the expectation and the shape found.
 */
export function expectShape<Axes extends string>(
  tensor: TensorType,
  axes: Axes,
  known: Readonly<Record<string, number>> = {},
  what = 'tensor',
): Readonly<Record<AxisNames<Axes>, number>> {
  const names = axes.split(' ').filter((name) => name !== '');
  const sizes: { [name: string]: number } = { ...known };
  const fits =
    names.length === tensor.shape.length &&
    names.every((name, axis) => {
      const found = at(tensor.shape, axis);
      const expected = /^\d+$/.test(name) ? Number(name) : sizes[name];
      sizes[name] ??= found;
      return expected === undefined || expected === found;
    });
  if (!fits) {
    const sized = names.map((name) => (known[name] === undefined ? name : `${name}=${known[name]}`));
    throw new GraphError(`${what} must be [${sized.join(', ')}], got ${formatShape(tensor.shape)}`);
  }
  return sizes as Record<AxisNames<Axes>, number>;
}

/**
 * Element `index` of a list that is known to have it.
 * @throws RangeError when it does not: a bug in the caller, never a user's mistake.
 */
export function at<T>(list: { readonly length: number; readonly [index: number]: T }, index: number): T {
  const value = list[index];
  if (value === undefined) throw new RangeError(`index ${index} is outside a list of ${list.length}`);
  return value;
}

/** Adds to one of the lists of a map. */
export function addTo<Key, Value>(lists: Map<Key, Value[]>, key: Key, value: Value): void {
  const known = lists.get(key);
  if (known === undefined) lists.set(key, [value]);
  else known.push(value);
}
