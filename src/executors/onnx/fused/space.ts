import { at, elementCount, type Shape } from '../../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor, usersOf } from '../../../tensor/tensor.ts';
import type { Op } from '../../../tensor/vocabulary.ts';

/** The rows that a fused operation goes through, each `width` elements long. */
export interface Space {
  readonly rows: number;
  readonly width: number;
}

/** What a value has: one number, one for each row, or one for each element. The order is that of `native/tile.h`. */
export const extents = { scalar: 0, column: 1, full: 2 } as const;

/** One of {@link extents}. */
export type Extent = (typeof extents)[keyof typeof extents];

/** How an operand's rows are found: row r of the space reads row floor(r / divisor) mod modulus; modulus 0: row r itself. */
export interface Access {
  readonly extent: Extent;
  readonly divisor: number;
  readonly modulus: number;
}

/** Elementwise operations that have an instruction each; the order is that of `native/tile.h`. */
export const elementwiseOps = [
  'neg',
  'abs',
  'exp',
  'sqrt',
  'tanh',
  'sigmoid',
  'gelu',
  'silu',
  'add',
  'sub',
  'mul',
  'div',
  'maximum',
  'minimum',
] as const satisfies readonly Op[];

const elementwise: ReadonlySet<Op> = new Set<Op>(elementwiseOps);

/** Whether two spaces are one. */
export function sameSpace(a: Space | undefined, b: Space | undefined): boolean {
  return a !== undefined && b !== undefined && a.rows === b.rows && a.width === b.width;
}

/**
 * The space of every node that may be part of a fused operation: that of its result, or for what has one number for
 * each row (sums over rows and what is made of them) or for all, that of the rows it is of.
 * @param isFree whether a node may be fused at all.
 */
export function spacesOf(
  nodes: readonly Node[],
  outputs: readonly Tensor[],
  isFree: (node: Node) => boolean,
): ReadonlyMap<Node, Space> {
  const spaces = new Map<Node, Space>();
  const undecided: Node[] = [];
  for (const node of nodes) {
    if (!isFree(node) || !isFusable(node)) continue;
    const space = ownSpace(node) ?? inheritedSpace(node, spaces);
    if (space === undefined) undecided.push(node);
    else if (fits(node, space, spaces)) spaces.set(node, space);
  }
  // Numbers made of nothing in a space, such as learning rates, belong where they are used, if that is one place.
  const users = usersOf(nodes);
  const leaving = new Set(outputs.map(({ node }) => node));
  for (const node of undecided.reverse()) {
    const [first, ...others] = (users.get(node) ?? []).map((user) => spaces.get(user));
    if (first === undefined || leaving.has(node) || !others.every((other) => sameSpace(first, other)))
      continue;
    if (elementCount(shapeOf(node)) === 1 && fits(node, first, spaces)) spaces.set(node, first);
  }
  return spaces;
}

/** How an operand that comes from elsewhere is read by a node with the given result; undefined: not row by row. */
export function accessOf(operand: Shape, result: Shape, { rows, width }: Space): Access | undefined {
  const count = elementCount(operand);
  if (count === 1) return { extent: extents.scalar, divisor: 1, modulus: 0 };
  const isRow = width > 1 && operand.at(-1) === width && elementCount(result) === rows * width;
  const extent = isRow ? extents.full : extents.column;
  if (count === (isRow ? rows * width : rows)) return { extent, divisor: 1, modulus: 0 };
  if (!isRow && operand.at(-1) !== 1) return undefined;
  const lead = result.slice(0, -1);
  const own = operand.slice(0, -1);
  const padded = [...new Array<number>(Math.max(0, lead.length - own.length)).fill(1), ...own];
  const varying = lead.flatMap((size, axis) => (size > 1 && padded[axis] !== 1 ? [axis] : []));
  const [from = 0, to = -1] = [varying[0], varying.at(-1)];
  if (lead.some((size, axis) => axis >= from && axis <= to && padded[axis] !== size)) return undefined;
  const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);
  return varying.length === 0
    ? { extent, divisor: 1, modulus: 1 }
    : { extent, divisor: product(lead.slice(to + 1)), modulus: product(lead.slice(from, to + 1)) };
}

function isFusable(node: Node): boolean {
  if (node.results.length !== 1 || at(node.results, 0).dtype !== 'f32') return false;
  const shapes = operandsOf(node).map(({ shape }) => shape);
  if (elementCount(shapeOf(node)) === 0 || shapes.some((shape) => elementCount(shape) === 0)) return false;
  switch (node.op) {
    case 'sum':
    case 'max':
      return node.attributes.axes.length === 1 && node.attributes.axes[0] === at(shapes, 0).length - 1;
    case 'layerNorm':
    case 'rmsNorm':
    case 'broadcast':
    case 'reshape':
      return true;
    default:
      return elementwise.has(node.op);
  }
}

/** The space that a node is in by its own shape, or for sums and norms by their operand's. */
function ownSpace(node: Node): Space | undefined {
  const isSum = node.op === 'sum' || node.op === 'max';
  const shape = isSum ? node.operands[0].shape : shapeOf(node);
  const width = shape.at(-1) ?? 1;
  return width > 1 ? { rows: elementCount(shape) / width, width } : undefined;
}

/** The space of an operand that has as many rows as the node has numbers. */
function inheritedSpace(node: Node, spaces: ReadonlyMap<Node, Space>): Space | undefined {
  const count = elementCount(shapeOf(node));
  return operandsOf(node)
    .filter(({ shape }) => elementCount(shape) === count)
    .map(({ node: operand }) => spaces.get(operand))
    .find((space) => space?.rows === count);
}

/** Whether each operand can be read row by row. */
function fits(node: Node, space: Space, spaces: ReadonlyMap<Node, Space>): boolean {
  if (node.op === 'sum' || node.op === 'max' || node.op === 'layerNorm' || node.op === 'rmsNorm') {
    // Rows of one element may stand in a space of wider ones: they are not what is summed there.
    const [{ shape }] = node.operands;
    return shape.at(-1) === space.width && accessOf(shape, shape, space) !== undefined;
  }
  if (node.op === 'reshape') {
    const [{ shape, node: from }] = node.operands;
    // Rows stay rows: only what stands before them changes.
    return (
      shape.at(-1) === shapeOf(node).at(-1) ||
      (shapeOf(node).at(-1) === 1 && sameSpace(spaces.get(from), space))
    );
  }
  const result = shapeOf(node);
  return operandsOf(node).every(({ shape }) => accessOf(shape, result, space) !== undefined);
}

function shapeOf(node: Node): Shape {
  return at(node.results, 0).shape;
}
