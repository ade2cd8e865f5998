import { rewriteNodes } from '../../tensor/rewrite.ts';
import { at, elementCount, type Shape } from '../../tensor/shape.ts';
import { applyOne, type NodeOf, nodesOf, type Tensor } from '../../tensor/tensor.ts';

/**
 * Convolutions along one axis that are written as products, and their gradients, as the convolutions that they are: a linear
 * map of a tensor beside itself, shifted along an axis. Nothing then puts the shifted tensors side by side in memory.
 */
export function withConvolutions(targets: readonly Tensor[]): Tensor[] {
  return rewriteNodes({ nodes: nodesOf(targets), outputs: targets }, (node, operands) => {
    const [a, b] = operands;
    if (a === undefined || a.dtype !== 'f32') return undefined;
    const { shape } = at(node.results, 0);
    const found =
      node.op === 'matmul' && b !== undefined
        ? (productOfTaps(a, b, node.attributes, shape) ?? sumOfOuterProducts(a, b, node.attributes, shape))
        : node.op === 'add' && b !== undefined
          ? sumOfTaps([a, b], shape)
          : node.op === 'slice'
            ? withoutPadding(a, node.attributes)
            : undefined;
    return found && [found];
  });
}

/** A tensor beside itself: along the last axis stretches of x one after the other, each one step further along `axis`. */
interface Taps {
  readonly x: Tensor;
  readonly axis: number;
  readonly count: number;
  /** Zeros that count as being in front of x. */
  readonly pad: number;
}

/** taps w^T, a convolution. */
function productOfTaps(
  a: Tensor,
  w: Tensor,
  { transposeA, transposeB }: Sides,
  shape: Shape,
): Tensor | undefined {
  if (transposeA || !transposeB || w.rank !== 2) return undefined;
  const taps = tapsOf(a);
  if (taps === undefined) return undefined;
  const { x, axis, count, pad } = taps;
  return applyOne('convolution', [asLines(x, axis), asKernel(w, count)], along(pad)).reshape(shape);
}

/** dy^T taps, the gradient of the convolution's kernel. */
function sumOfOuterProducts(
  dy: Tensor,
  b: Tensor,
  { transposeA, transposeB }: Sides,
  shape: Shape,
): Tensor | undefined {
  if (!transposeA || transposeB || b.rank !== 2 || dy.rank !== 2) return undefined;
  const beside = unreshaped(b);
  const taps = tapsOf(beside);
  if (taps === undefined || beside.shape.at(-1) !== b.shape[1]) return undefined;
  const { x, axis, count, pad } = taps;
  const spread = dy.reshape([...beside.shape.slice(0, -1), at(shape, 0)]);
  return applyOne('convolutionKernelGradient', [asLines(x, axis), asLines(spread, axis)], {
    ...along(pad),
    kernelSize: [count, 1],
  }).reshape(shape);
}

/** Stretches of dy w along the last axis, each moved one step further along another and added up: the input's gradient. */
function sumOfTaps(operands: readonly Tensor[], shape: Shape): Tensor | undefined {
  const terms = padsOf(operands);
  const [first] = terms;
  if (first === undefined) return undefined;
  const { before, after } = first.attributes;
  const axis = before.findIndex((size, i) => size > 0 || at(after, i) > 0);
  const stretches = terms.map((term) => movedStretch(term, axis, terms.length));
  const { product } = stretches[0] ?? {};
  if (product?.node.op !== 'matmul' || axis < 0 || axis >= shape.length - 1) return undefined;
  const channels = at(shape, shape.length - 1);
  const fits = stretches.every(
    (stretch, i) =>
      stretch?.product.node === product.node &&
      stretch.start === channels * stretch.step &&
      stretches.findIndex((other) => other?.step === stretch.step) === i,
  );
  const [dy, w] = product.node.operands;
  const { transposeA, transposeB } = product.node.attributes;
  if (!fits || product.shape.at(-1) !== channels * terms.length || transposeA || transposeB || w.rank !== 2)
    return undefined;
  const lines = asLines(dy, axis);
  return applyOne('convolutionInputGradient', [lines, asKernel(w, terms.length)], {
    ...along(0),
    inputSize: [at(shape, axis), at(lines.shape, 2)],
  }).reshape(shape);
}

/** The gradient of a padded input, of which the padding is cut off: that of the input. */
function withoutPadding(x: Tensor, { starts, ends }: NodeOf<'slice'>['attributes']): Tensor | undefined {
  const { node } = unreshaped(x);
  if (node.op !== 'convolutionInputGradient' || node.attributes.inputSize.length !== 2) return undefined;
  const { strides, padding } = node.attributes;
  const isAlong = strides.every((stride) => stride === 1) && padding.flat().every((count) => count === 0);
  if (!isAlong || x.shape.at(-1) !== node.operands[1].shape.at(-1)) return undefined;
  const axis = starts.findIndex((start) => start > 0);
  const isFront = starts.every((start, i) => (i === axis || start === 0) && ends[i] === x.shape[i]);
  const [size, length] = node.attributes.inputSize;
  const isLine = axis > 0 && elementCount(x.shape.slice(axis + 1, -1)) === length && x.shape[axis] === size;
  if (!isFront || !isLine || at(starts, axis) >= at(node.operands[1].shape, 1)) return undefined;
  const shape = x.shape.map((whole, i) => whole - at(starts, i));
  return applyOne('convolutionInputGradient', node.operands, {
    ...along(at(starts, axis)),
    inputSize: [at(shape, axis), length],
  }).reshape(shape);
}

type Sides = NodeOf<'matmul'>['attributes'];

/** A convolution along the first of two axes, with zeros in front. */
function along(pad: number): { strides: number[]; padding: [number, number][] } {
  return {
    strides: [1, 1],
    padding: [
      [pad, 0],
      [0, 0],
    ],
  };
}

function tapsOf({ node, rank }: Tensor): Taps | undefined {
  if (node.op !== 'concat' || node.attributes.axis !== rank - 1) return undefined;
  const [first] = node.operands;
  if (first?.node.op !== 'slice') return undefined;
  const [whole] = first.node.operands;
  const count = node.operands.length;
  const axis = first.shape.findIndex((size, i) => size !== whole.shape[i]);
  const isTap = ({ node: tap }: Tensor, step: number) =>
    tap.op === 'slice' &&
    tap.operands[0].node === whole.node &&
    tap.operands[0].index === whole.index &&
    tap.attributes.starts.every((start, i) => start === (i === axis ? step : 0)) &&
    tap.attributes.ends.every((end, i) => end === at(whole.shape, i) - (i === axis ? count - 1 - step : 0));
  if (axis < 0 || axis >= rank - 1 || !node.operands.every(isTap)) return undefined;
  const [zeros, x] =
    whole.node.op === 'concat' && whole.node.attributes.axis === axis ? whole.node.operands : [];
  const isPadded =
    x !== undefined &&
    whole.node.operands.length === 2 &&
    zeros?.node.op === 'constant' &&
    zeros.node.attributes.values.every((value) => value === 0);
  return isPadded ? { x, axis, count, pad: at(zeros.shape, axis) } : { x: whole, axis, count, pad: 0 };
}

/** Most taps that are looked for. */
const mostTaps = 16;

/** The terms of a sum if they are few and all paddings; else none. */
function padsOf(operands: readonly Tensor[]): readonly NodeOf<'pad'>[] {
  const pending = operands.map(({ node }) => node);
  const found: NodeOf<'pad'>[] = [];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (node.op === 'pad') found.push(node);
    else if (node.op === 'add') pending.push(...node.operands.map((operand) => operand.node));
    else return [];
    if (found.length + pending.length > mostTaps) return [];
  }
  return found;
}

/** A stretch of a product's last axis that padding moves along another axis by some of `count - 1` steps. */
function movedStretch(
  node: NodeOf<'pad'>,
  axis: number,
  count: number,
): { readonly product: Tensor; readonly start: number; readonly step: number } | undefined {
  const [inner] = node.operands;
  if (inner.node.op !== 'slice') return undefined;
  const [product] = inner.node.operands;
  const { before, after } = node.attributes;
  const step = at(before, axis);
  const isMoved = before.every((size, i) => size + at(after, i) === (i === axis ? count - 1 : 0));
  const last = inner.rank - 1;
  const isStretch = inner.shape.every((size, i) => i === last || size === product.shape[i]);
  return isMoved && isStretch ? { product, start: at(inner.node.attributes.starts, last), step } : undefined;
}

/** [lead, size of the axis, what is behind it, channels] */
function asLines(x: Tensor, axis: number): Tensor {
  const [lead, behind] = [x.shape.slice(0, axis), x.shape.slice(axis + 1, -1)];
  return x.reshape([elementCount(lead), at(x.shape, axis), elementCount(behind), at(x.shape, x.rank - 1)]);
}

/** w [outputs, taps * channels] as a kernel [outputs, taps, 1, channels]. */
function asKernel(w: Tensor, count: number): Tensor {
  return w.reshape([at(w.shape, 0), count, 1, at(w.shape, 1) / count]);
}

function unreshaped(x: Tensor): Tensor {
  return x.node.op === 'reshape' ? unreshaped(x.node.operands[0]) : x;
}
