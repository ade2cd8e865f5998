import {
  allGather,
  allReduce,
  convolution,
  gather,
  matmul,
  pad,
  reduceScatter,
  rotary,
  scatterAdd,
  sumTo,
  where,
} from './functions.ts';
import { at, elementCount, GraphError } from './shape.ts';
import { apply, applyOne, constant, type NodeOf, type Tensor } from './tensor.ts';
import type { Op } from './vocabulary.ts';

/** What a gradient rule works from: a node, its results and their gradients. */
export interface Backward<K extends Op> {
  readonly operands: NodeOf<K>['operands'];
  readonly attributes: NodeOf<K>['attributes'];
  /** First result; {@link Backward.ys} has all. */
  readonly y: Tensor;
  readonly ys: readonly Tensor[];
  /** Gradient of the first result, zeros when only others have one. */
  readonly dy: Tensor;
  /** Gradient of each result; undefined where the loss does not depend on it. */
  readonly dys: readonly (Tensor | undefined)[];
}

/** Gradients of a node's operands, in their order; undefined where no gradient flows. */
export type GradientRule<K extends Op> = (node: Backward<K>) => readonly (Tensor | undefined)[];

/** An operation whose gradient is a rule over primitives; `call` is differentiated as a graph (`gradients.ts`). */
export type PrimitiveOp = Exclude<Op, 'call'>;

/** The gradient rule of every primitive operation: reverse mode, each line the textbook's. */
export const gradientRules: { readonly [K in PrimitiveOp]: GradientRule<K> } = {
  input: none,
  constant: none,

  neg: ({ dy }) => [dy.neg()],
  abs: ({ operands: [x], dy }) => [where(x.less(0), dy.neg(), dy)],
  exp: ({ y, dy }) => [dy.mul(y)],
  log: ({ operands: [x], dy }) => [dy.div(x)],
  sqrt: ({ y, dy }) => [dy.mul(0.5).div(y)],
  sin: ({ operands: [x], dy }) => [dy.mul(x.cos())],
  cos: ({ operands: [x], dy }) => [dy.mul(x.sin()).neg()],
  tanh: ({ y, dy }) => [dy.sub(dy.mul(y.square()))],
  sigmoid: ({ y, dy }) => [dy.mul(y.sub(y.square()))],
  // gelu(x) = x s(u) with s the sigmoid and u = c (x + 0.044715 x^3), so gelu' = s + (y - y s) u'.
  gelu: ({ operands: [x], y, dy }) => {
    const [c, cubic] = [Math.sqrt(8 / Math.PI), 0.044715];
    const square = x.square();
    const s = x.mul(square.mul(c * cubic).add(c)).sigmoid();
    const slope = square.mul(3 * c * cubic).add(c);
    return [dy.mul(y.sub(y.mul(s)).mul(slope).add(s))];
  },
  // silu(x) = x s, so silu' = s + y - y s.
  silu: ({ operands: [x], y, dy }) => {
    const s = x.sigmoid();
    return [dy.mul(y.sub(y.mul(s)).add(s))];
  },

  add: ({ operands: [a, b], dy }) => [sumTo(dy, a), sumTo(dy, b)],
  sub: ({ operands: [a, b], dy }) => [sumTo(dy, a), sumTo(dy.neg(), b)],
  mul: ({ operands: [a, b], dy }) => [sumTo(dy.mul(b), a), sumTo(dy.mul(a), b)],
  div: ({ operands: [a, b], y, dy }) => {
    const da = dy.div(b);
    return [sumTo(da, a), sumTo(da.mul(y).neg(), b)];
  },
  maximum: ({ operands: [a, b], dy }) => chosen(a.less(b), b, a, dy).reverse(),
  minimum: ({ operands: [a, b], dy }) => chosen(b.less(a), b, a, dy).reverse(),
  equal: none,
  less: none,
  where: ({ operands: [condition, a, b], dy }) => [undefined, ...chosen(condition, a, b, dy)],
  cast: ({ operands: [x], dy }) => [dy.cast(x.dtype)],

  sum: ({ operands: [x], attributes, dy }) => [keepAxes(dy, x, attributes.axes).broadcastTo(x.shape)],
  max: ({ operands: [x], attributes: { axes }, y, dy }) => {
    const isMaximum = x.equal(keepAxes(y, x, axes)).cast(x.dtype);
    return [isMaximum.mul(keepAxes(dy, x, axes).div(isMaximum.sum(axes, true)))];
  },
  softmax: ({ y, dy }) => [y.mul(dy.sub(dy.mul(y).sum([-1], true)))],
  layerNorm: ({ operands: [x], attributes: { epsilon }, y, dy }) => {
    const deviation = x
      .sub(x.mean([-1], true))
      .square()
      .mean([-1], true)
      .add(epsilon)
      .sqrt();
    return [
      dy
        .sub(dy.mean([-1], true))
        .sub(y.mul(dy.mul(y).mean([-1], true)))
        .div(deviation),
    ];
  },
  rmsNorm: ({ operands: [x], attributes: { epsilon }, y, dy }) => {
    const rootMeanSquare = x.square().mean([-1], true).add(epsilon).sqrt();
    return [dy.sub(y.mul(dy.mul(y).mean([-1], true))).div(rootMeanSquare)];
  },

  matmul: ({ operands: [a, b], attributes: { transposeA, transposeB }, dy }) => {
    // A matrix shared by a whole batch: fold the batch into rows, so that its gradient is one matrix product.
    if (b.rank === 2 && a.rank > 2 && !transposeA) {
      const [rowsOfA, rowsOfDy] = [asRows(a), asRows(dy)];
      const db = transposeB
        ? matmul(rowsOfDy, rowsOfA, { transposeA: true })
        : matmul(rowsOfA, rowsOfDy, { transposeA: true });
      return [matmul(dy, b, { transposeB: !transposeB }), db];
    }
    const da = transposeA
      ? matmul(b, dy, { transposeA: transposeB, transposeB: true })
      : matmul(dy, b, { transposeB: !transposeB });
    const db = transposeB
      ? matmul(dy, a, { transposeA: true, transposeB: transposeA })
      : matmul(a, dy, { transposeA: !transposeA });
    return [sumTo(da, a), sumTo(db, b)];
  },
  convolution: ({ operands: [x, kernel], attributes, dy }) => [
    applyOne('convolutionInputGradient', [dy, kernel], { ...attributes, inputSize: x.shape.slice(1, -1) }),
    applyOne('convolutionKernelGradient', [x, dy], { ...attributes, kernelSize: kernel.shape.slice(1, -1) }),
  ],
  // Both gradients of a convolution are linear in each operand, so their gradients are convolutions again.
  convolutionInputGradient: ({ operands: [dy, kernel], attributes: { strides, padding }, dy: g }) => [
    convolution(g, kernel, { strides, padding }),
    applyOne('convolutionKernelGradient', [g, dy], {
      strides,
      padding,
      kernelSize: kernel.shape.slice(1, -1),
    }),
  ],
  convolutionKernelGradient: ({ operands: [x, dy], attributes: { strides, padding }, dy: g }) => [
    applyOne('convolutionInputGradient', [dy, g], { strides, padding, inputSize: x.shape.slice(1, -1) }),
    convolution(x, g, { strides, padding }),
  ],
  attention: ({ operands: [q, k, v, segments], attributes, ys, dy, dys }) => {
    if (dys[1] !== undefined) throw new GraphError('attention: the log-sum of its softmax has no gradient');
    const operands = [q, k, v, at(ys, 0), at(ys, 1), dy] as const;
    return apply(
      'attentionGradient',
      segments === undefined ? [...operands] : [...operands, segments],
      attributes,
    );
  },
  attentionGradient: () => {
    throw new GraphError(
      'attentionGradient: second derivatives of attention are not provided; compose it from matmul and softmax',
    );
  },
  rotary: ({ operands: [, cos, sin], attributes, dy }) => [
    rotary(dy, cos, sin.neg(), attributes),
    undefined,
    undefined,
  ],

  reshape: ({ operands: [x], dy }) => [dy.reshape(x.shape)],
  transpose: ({ attributes: { permutation }, dy }) => [
    dy.transpose(permutation.map((_, axis) => permutation.indexOf(axis))),
  ],
  broadcast: ({ operands: [x], dy }) => [sumTo(dy, x)],
  slice: ({ operands: [x], attributes: { starts, ends }, dy }) => [
    pad(
      dy,
      x.shape.map((size, axis) => [at(starts, axis), size - at(ends, axis)]),
    ),
  ],
  concat: ({ operands, attributes: { axis }, dy }) =>
    dy.split(
      axis,
      operands.map(({ shape }) => at(shape, axis)),
    ),
  pad: ({ operands: [x], attributes: { before }, dy }) => [
    x.shape.reduce((part, size, axis) => part.slice(axis, at(before, axis), at(before, axis) + size), dy),
  ],

  gather: ({ operands: [table, indices], dy }) => [scatterAdd(indices, dy, at(table.shape, 0)), undefined],
  scatterAdd: ({ operands: [indices], dy }) => [undefined, gather(dy, indices)],

  allReduce: ({ dy }) => [allReduce(dy)],
  allGather: ({ attributes: { processes }, dy }) => [reduceScatter(dy, processes)],
  reduceScatter: ({ attributes: { processes }, dy }) => [allGather(dy, processes)],
};

function none(): readonly undefined[] {
  return [];
}

/** Gradients of a and b in `where(condition, a, b)`. */
function chosen(condition: Tensor, a: Tensor, b: Tensor, dy: Tensor): [Tensor, Tensor] {
  const zero = constant([0], [], dy.dtype);
  return [sumTo(where(condition, dy, zero), a), sumTo(where(condition, zero, dy), b)];
}

/** A reduction's result with the reduced axes back, of size 1. */
function keepAxes(reduced: Tensor, x: Tensor, axes: readonly number[]): Tensor {
  return reduced.reshape(x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size)));
}

/** All leading axes joined into rows. */
function asRows(x: Tensor): Tensor {
  return x.reshape([elementCount(x.shape.slice(0, -1)), at(x.shape, x.rank - 1)]);
}
