import { at, elementCount } from '../../../tensor/shape.ts';
import { type Node, type NodeOf, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import { isPointwise, type KernelContext, resultOf } from '../plain/expression.ts';
import type { Inlining } from '../plain/inlining.ts';
import { type Read, type RowSpace, RowWriter } from './row-writer.ts';

/** A tensor that a kernel computes: the smallest part of a group. */
export interface Unit {
  /**
   * `pointwise`: an expression for each element. `row`: a sum or maximum over the last axis. `column`: a sum over all
   * axes but the last. `total`: a sum over all. `part`: an expression that is written into a part of a larger tensor.
   */
  readonly kind: 'pointwise' | 'row' | 'column' | 'total' | 'part';
  /** What is computed for each element: the value itself, or what is summed. */
  readonly expression: Tensor;
  /** What it makes in memory: for a part, the larger tensor. */
  readonly output: Tensor;
  /** Where a part begins along an axis of its output. */
  readonly axis: number;
  readonly offset: number;
  /** Elements that it walks over. */
  readonly count: number;
  /** Length of rows, where the expression needs one. */
  readonly pinned: number | undefined;
  /** Length of rows otherwise. */
  readonly natural: number;
}

/** What a group's parts may know of the graph. */
export interface FusionContext extends KernelContext, Inlining {
  /** A reshape of what is in memory: the same memory under another shape. */
  readonly isView: (tensor: Tensor) => boolean;
}

/** Rows longer than this are not walked by one block. */
export const longestRow = 16_384;

/** Rows longer than this are not added up column by column: a thread holds its sums in registers. */
const longestColumns = 8192;

/** The units of a node whose result is in memory; undefined when no fused kernel computes it. */
export function unitsOf(node: Node, context: FusionContext): readonly Unit[] | undefined {
  const output = resultOf(node);
  if (elementCount(output.shape) === 0 || operandsOf(node).some(({ shape }) => elementCount(shape) === 0))
    return undefined;
  if (node.op === 'sum' || node.op === 'max') return sumUnit(node, context);
  if (node.op === 'concat' && isWrittenInParts(node, context)) {
    const { axis } = node.attributes;
    let offset = 0;
    return node.operands.map((part) => {
      const unit = unitOf('part', part, output, context, { axis, offset });
      offset += at(part.shape, axis);
      return unit;
    });
  }
  if (isPointwise(node) || node.op === 'gather') return [unitOf('pointwise', output, output, context)];
  return undefined;
}

function unitOf(
  kind: Unit['kind'],
  expression: Tensor,
  output: Tensor,
  context: FusionContext,
  place = { axis: 0, offset: 0 },
): Unit {
  const natural = at([1, ...expression.shape], expression.rank);
  const turned =
    kind === 'pointwise' || kind === 'part' ? turnedLength(expression, expression.node, context) : undefined;
  const pinned = kind === 'row' || kind === 'column' ? natural : turned;
  return { kind, expression, output, ...place, count: elementCount(expression.shape), pinned, natural };
}

/** Length of the rows in which an expression turns pairs of elements, if it does and they are its own rows. */
function turnedLength(whole: Tensor, node: Node, context: FusionContext): number | undefined {
  if (node.op === 'rotary') {
    const length = at(node.operands[0].shape, 3);
    return elementCount(node.operands[0].shape) === elementCount(whole.shape) ? length : undefined;
  }
  for (const operand of operandsOf(node)) {
    if (!context.isInlined(operand)) continue;
    const length = turnedLength(whole, operand.node, context);
    if (length !== undefined) return length;
  }
  return undefined;
}

function sumUnit(node: NodeOf<'sum' | 'max'>, context: FusionContext): readonly Unit[] | undefined {
  const [x] = node.operands;
  const { axes, keepDims } = node.attributes;
  const length = at([1, ...x.shape], x.rank);
  if (x.dtype !== 'f32') return undefined;
  if (node.op === 'sum' && axes.length === x.rank && x.rank > 0 && !keepDims)
    return [unitOf('total', x, resultOf(node as Node), context)];
  if (length === 1 || length > longestRow) return undefined;
  const output = resultOf(node as Node);
  if (axes.length === 1 && axes[0] === x.rank - 1) return [unitOf('row', x, output, context)];
  // Axes of size 1 may be among those summed over, or not.
  const isColumn =
    node.op === 'sum' &&
    !axes.includes(x.rank - 1) &&
    x.shape.slice(0, -1).every((size, axis) => size === 1 || axes.includes(axis));
  return isColumn && axes.length > 0 && length <= longestColumns
    ? [unitOf('column', x, output, context)]
    : undefined;
}

/**
 * Whether each part of a concatenation is written by the kernel that makes it: parts along the last axis that are not
 * cut out of one padded tensor, which one kernel had better read once.
 */
function isWrittenInParts(node: NodeOf<'concat'>, context: FusionContext): boolean {
  const { axis } = node.attributes;
  const isPadded = (tensor: Tensor): boolean =>
    context.isInlined(tensor) &&
    (tensor.node.op === 'pad' || tensor.node.op === 'concat' || operandsOf(tensor.node).some(isPadded));
  return (
    axis === resultOf(node as Node).rank - 1 &&
    node.operands.every((part) => at(part.shape, axis) > 1 && !isPadded(part))
  );
}

/** Whether a tensor is part of a unit's expression, and not read from memory. */
export function isWithin(
  unit: Unit,
  { isInlined, isRepeated, isView }: FusionContext,
): (tensor: Tensor) => boolean {
  return (tensor) =>
    (tensor === unit.expression && unit.kind === 'pointwise') ||
    isInlined(tensor) ||
    isRepeated(tensor) ||
    isView(tensor);
}

/** How a unit reads memory when it is computed over some rows. */
export function readsOf(unit: Unit, space: RowSpace, context: FusionContext): readonly Read[] {
  const { indexType, storage } = context;
  const isComputed = isWithin(unit, context);
  const writer = new RowWriter({ space, vector: 1, held: undefined, indexType, storage, isComputed });
  const { shape } = unit.expression;
  const isNarrow = unit.count !== space.rows * space.length;
  writer.expression.element(unit.expression, isNarrow ? writer.narrow(shape) : writer.home(shape));
  return writer.reads;
}
