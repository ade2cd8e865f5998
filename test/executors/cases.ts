import type { DType } from '../../src/tensor/dtype.ts';
import {
  allGather,
  allReduce,
  attention,
  concat,
  convolution,
  gather,
  gelu,
  layerNorm,
  matmul,
  pad,
  reduceScatter,
  rmsNorm,
  rotary,
  scatterAdd,
  silu,
  softmax,
  where,
} from '../../src/tensor/functions.ts';
import { formatShape, type Shape, type TensorType } from '../../src/tensor/shape.ts';
import { apply, applyOne, constant, type Tensor } from '../../src/tensor/tensor.ts';
import { block, checkpoint } from '../../src/tensor/trace.ts';
import type { ConvolutionGeometry, Op } from '../../src/tensor/vocabulary.ts';

/** Where an input's values come from: a distribution, or the values themselves. */
export type Source = 'normal' | 'positive' | 'distinct' | readonly number[];

/** An input of a case. */
export interface CaseInput extends TensorType {
  readonly source: Source;
  /** Set for inputs that operations treat as data, such as rotary angles: they get no gradient. */
  readonly isData?: true;
}

/** One computation that every executor must do as the reference does, forward and backward. */
export interface ConformanceCase {
  readonly name: string;
  readonly inputs: readonly CaseInput[];
  readonly build: (...tensors: Tensor[]) => readonly Tensor[];
  /** Bound on the error relative to the largest value, in units of the executor's own tolerance. Default 1. */
  readonly looseness?: number;
  /** Set when the case has no gradient. */
  readonly forwardOnly?: true;
}

/** f32 input. */
export function f32(shape: Shape, source: Source = 'normal'): CaseInput {
  return { shape, dtype: 'f32', source };
}

function i32(shape: Shape, values: readonly number[]): CaseInput {
  return { shape, dtype: 'i32', source: values };
}

function of(dtype: DType, shape: Shape, source: Source = 'normal'): CaseInput {
  return { shape, dtype, source };
}

function one(
  name: string,
  inputs: readonly CaseInput[],
  build: (...tensors: Tensor[]) => Tensor,
  extra: Partial<ConformanceCase> = {},
): ConformanceCase {
  return { name, inputs, build: (...tensors) => [build(...tensors)], ...extra };
}

const oddShapes: readonly Shape[] = [[], [1], [7], [2, 3, 5], [1, 1, 4, 1], [33, 17]];
const broadcastPairs: readonly (readonly [Shape, Shape])[] = [
  [
    [4, 5],
    [4, 5],
  ],
  [[4, 5], []],
  [[], [3]],
  [
    [2, 1, 5],
    [3, 1],
  ],
  [
    [3, 1, 2],
    [1, 4, 1],
  ],
  [[7], [5, 1]],
];

function unary(build: (x: Tensor) => Tensor, source: Source = 'normal'): ConformanceCase[] {
  return oddShapes.map((shape) => one(formatShape(shape), [f32(shape, source)], (x) => build(x!)));
}

function binary(
  build: (a: Tensor, b: Tensor) => Tensor,
  source: Source = 'normal',
  extra: Partial<ConformanceCase> = {},
): ConformanceCase[] {
  return [
    ...broadcastPairs.map(([a, b]) =>
      one(
        `${formatShape(a)} ${formatShape(b)}`,
        [f32(a, source), f32(b, source)],
        (x, y) => build(x!, y!),
        extra,
      ),
    ),
    one('operand twice', [f32([3, 4], source)], (x) => build(x!, x!), extra),
  ];
}

/** Integers, products beyond 53 bits among them. */
function integers(build: (a: Tensor, b: Tensor) => Tensor): ConformanceCase {
  return one(
    'i32',
    [i32([2, 3], [5, -2, 123456789, 7, -9, 3]), i32([3], [2, -2, 987654321])],
    (a, b) => build(a!, b!),
    {
      forwardOnly: true,
    },
  );
}

function reductions(
  build: (x: Tensor, axes: readonly number[], keepDims: boolean) => Tensor,
): ConformanceCase[] {
  const settings: readonly (readonly [Shape, readonly number[], boolean])[] = [
    [[2, 3, 5], [0, 1, 2], false],
    [[2, 3, 5], [-1], true],
    [[2, 3, 5], [0, 2], false],
    [[2, 3, 5], [1], true],
    [[2, 3], [], false],
    [[17], [0], false],
    [[1, 4], [0], true],
  ];
  return settings.map(([shape, axes, keepDims]) =>
    one(
      `${formatShape(shape)} over ${formatShape(axes)}${keepDims ? ' kept' : ''}`,
      [f32(shape, 'distinct')],
      (x) => build(x!, axes, keepDims),
      { looseness: 4 },
    ),
  );
}

function rowwise(build: (x: Tensor) => Tensor): ConformanceCase[] {
  return ([[1], [9], [4, 1], [3, 64], [2, 5, 7], [1, 1, 130]] as const).map((shape) =>
    one(formatShape(shape), [f32(shape)], (x) => build(x!).mul(1.5), { looseness: 4 }),
  );
}

function matmuls(): ConformanceCase[] {
  const settings: readonly (readonly [Shape, Shape, boolean, boolean])[] = [
    [[3, 4], [4, 5], false, false],
    [[4, 3], [4, 5], true, false],
    [[3, 4], [5, 4], false, true],
    [[4, 3], [5, 4], true, true],
    [[2, 3, 4], [4, 5], false, false],
    [[2, 3, 4], [5, 4], false, true],
    [[2, 4, 3], [4, 5], true, false],
    [[2, 7, 3, 4], [2, 7, 4, 5], false, false],
    [[2, 1, 3, 4], [7, 5, 4], false, true],
    [[3, 4], [2, 4, 5], false, false],
    [[1, 1], [1, 1], false, false],
    [[17, 65], [65, 33], false, false],
    [[2, 0, 4], [4, 3], false, false],
  ];
  return settings.map(([a, b, transposeA, transposeB]) =>
    one(
      `${formatShape(a)}${transposeA ? "'" : ''} ${formatShape(b)}${transposeB ? "'" : ''}`,
      [f32(a), f32(b)],
      (x, y) => matmul(x!, y!, { transposeA, transposeB }),
      { looseness: 2 },
    ),
  );
}

const convolutionSettings: readonly {
  name: string;
  x: Shape;
  kernel: Shape;
  geometry?: Partial<ConvolutionGeometry>;
}[] = [
  { name: '1-d', x: [2, 9, 3], kernel: [4, 3, 3] },
  {
    name: '1-d stride 2 causal',
    x: [1, 9, 3],
    kernel: [2, 3, 3],
    geometry: { strides: [2], padding: [[2, 0]] },
  },
  {
    name: '2-d same',
    x: [2, 5, 6, 3],
    kernel: [4, 3, 3, 3],
    geometry: {
      padding: [
        [1, 1],
        [1, 1],
      ],
    },
  },
  {
    name: '2-d stride 2, one side padded',
    x: [1, 7, 6, 2],
    kernel: [3, 3, 3, 2],
    geometry: {
      strides: [2, 2],
      padding: [
        [0, 1],
        [1, 0],
      ],
    },
  },
  { name: '2-d 1x1', x: [2, 3, 4, 5], kernel: [3, 1, 1, 5] },
  {
    name: '2-d padding wider than the kernel',
    x: [1, 4, 3, 2],
    kernel: [2, 2, 1, 2],
    geometry: {
      padding: [
        [3, 2],
        [1, 1],
      ],
    },
  },
  {
    name: '3-d causal',
    x: [1, 4, 5, 5, 2],
    kernel: [3, 3, 3, 3, 2],
    geometry: {
      padding: [
        [2, 0],
        [1, 1],
        [1, 1],
      ],
    },
  },
  {
    name: '3-d stride 2, 3, 1',
    x: [2, 5, 7, 4, 2],
    kernel: [2, 2, 3, 2, 2],
    geometry: { strides: [2, 3, 1] },
  },
  {
    name: '3-d one frame',
    x: [1, 1, 4, 4, 3],
    kernel: [2, 3, 1, 1, 3],
    geometry: {
      padding: [
        [2, 0],
        [0, 0],
        [0, 0],
      ],
    },
  },
];

function convolutions(): ConformanceCase[] {
  return convolutionSettings.map(({ name, x, kernel, geometry }) =>
    one(name, [f32(x), f32(kernel)], (input, weights) => convolution(input!, weights!, geometry), {
      looseness: 2,
    }),
  );
}

/** Second derivatives of a convolution: the gradients of both its gradients. */
function convolutionGradients(
  op: 'convolutionInputGradient' | 'convolutionKernelGradient',
): ConformanceCase[] {
  return convolutionSettings.map(({ name, x, kernel, geometry }) => {
    const spatial = x.length - 2;
    const strides = geometry?.strides ?? new Array<number>(spatial).fill(1);
    const padding = geometry?.padding ?? new Array<[number, number]>(spatial).fill([0, 0]);
    const out = x
      .slice(1, -1)
      .map(
        (size, i) => Math.floor((size + padding[i]![0] + padding[i]![1] - kernel[i + 1]!) / strides[i]!) + 1,
      );
    const dy: Shape = [x[0]!, ...out, kernel[0]!];
    if (op === 'convolutionInputGradient') {
      return one(
        name,
        [f32(dy), f32(kernel)],
        (a, b) => applyOne(op, [a!, b!], { strides, padding, inputSize: x.slice(1, -1) }),
        { looseness: 2 },
      );
    }
    return one(
      name,
      [f32(x), f32(dy)],
      (a, b) => applyOne(op, [a!, b!], { strides, padding, kernelSize: kernel.slice(1, -1) }),
      { looseness: 2 },
    );
  });
}

interface AttentionSetting {
  readonly name: string;
  readonly q: Shape;
  readonly keys?: number;
  readonly scale?: number;
  readonly segments?: readonly number[];
}

const attentionSettings: readonly AttentionSetting[] = [
  { name: 'square', q: [2, 6, 2, 4] },
  { name: 'one token', q: [1, 1, 1, 2] },
  { name: 'odd sizes', q: [1, 13, 3, 8] },
  { name: 'cross, more keys', q: [2, 3, 2, 4], keys: 7 },
  { name: 'cross, fewer keys', q: [1, 9, 2, 4], keys: 2 },
  { name: 'scale given', q: [1, 5, 1, 4], scale: 2 },
  { name: 'negative scale', q: [1, 5, 1, 4], scale: -1 },
  { name: 'one segment', q: [1, 6, 2, 4], segments: [0, 6] },
  { name: 'packed', q: [1, 9, 2, 4], segments: [0, 4, 5, 9] },
  { name: 'packed with padding behind', q: [1, 9, 2, 4], segments: [0, 4, 7] },
  { name: 'packed with padding before', q: [1, 6, 1, 2], segments: [2, 4, 6] },
  { name: 'empty segments', q: [1, 8, 2, 4], segments: [0, 0, 3, 3, 3, 8, 8] },
  { name: 'nothing but padding', q: [1, 4, 1, 2], segments: [0, 0] },
  { name: 'rows packed differently', q: [2, 7, 2, 4], segments: [0, 3, 7, 0, 5, 6] },
  // cuDNN has engines for heads of 16 channels and more.
  { name: 'heads of 16', q: [2, 13, 3, 16], keys: 9 },
  { name: 'heads of 32, packed', q: [2, 9, 2, 32], segments: [0, 4, 9, 0, 5, 7] },
  { name: 'heads of 64, more keys than a tile', q: [1, 5, 2, 64], keys: 130 },
];

function attentionInputs({ q, keys = q[1]!, segments }: AttentionSetting): CaseInput[] {
  const kv: Shape = [q[0]!, keys, q[2]!, q[3]!];
  const offsets = segments === undefined ? [] : [i32([q[0]!, segments.length / q[0]!], segments)];
  return [f32(q), f32(kv), f32(kv), ...offsets];
}

function attentions(): ConformanceCase[] {
  const plain = attentionSettings.map((setting) =>
    one(
      setting.name,
      attentionInputs(setting),
      (q, k, v, segments) =>
        attention(q!, k!, v!, {
          ...(setting.scale !== undefined && { scale: setting.scale }),
          ...(segments && { segments }),
        }),
      { looseness: 4 },
    ),
  );
  const logSums = attentionSettings.map(
    (setting): ConformanceCase => ({
      name: `${setting.name}, with log-sum`,
      inputs: attentionInputs(setting),
      build: (q, k, v, segments) =>
        apply('attention', segments ? [q!, k!, v!, segments] : [q!, k!, v!], { scale: setting.scale ?? 0.5 }),
      looseness: 4,
      forwardOnly: true,
    }),
  );
  return [...plain, ...logSums];
}

/** Attention of sizes that executors may compute in pieces. Apart from the operations' own cases: it takes a while. */
export const longAttention: readonly ConformanceCase[] = [
  one(
    'few keys for many queries',
    [f32([1, 2048, 2, 16]), f32([1, 20, 2, 16]), f32([1, 20, 2, 16])],
    (q, k, v) => attention(q!, k!, v!),
    { looseness: 4 },
  ),
  {
    // All but the last 200 keys have score 0, so that the others count.
    name: 'many keys for few queries, with log-sum',
    inputs: [f32([2, 4, 1, 16]), f32([2, 200, 1, 16]), f32([2, 200, 1, 16])],
    build: (q, k, v) => {
      const [before, none] = [[24_476, 0] as const, [0, 0] as const];
      const [keys, values] = [k!, v!].map((x) => pad(x, [none, before, none, none])) as [Tensor, Tensor];
      return apply('attention', [q!, keys, values], { scale: 1.5 });
    },
    looseness: 4,
    forwardOnly: true,
  },
  one(
    'many keys for few queries',
    [f32([2, 4, 1, 16]), f32([2, 24_700, 1, 16]), f32([2, 24_700, 1, 16])],
    (q, k, v) => attention(q!, k!, v!, { scale: 1.5 }),
    { looseness: 4 },
  ),
];

/** The op itself, as a forward computation; its use as a gradient is in the backward half of `attention`. */
function attentionGradients(): ConformanceCase[] {
  return attentionSettings.map((setting) => ({
    name: setting.name,
    inputs: [...attentionInputs(setting), f32(setting.q)],
    build: (...tensors) => {
      const [q, k, v, segments] = setting.segments ? tensors : [tensors[0], tensors[1], tensors[2]];
      const dy = tensors.at(-1)!;
      const [y, logSum] = apply('attention', segments ? [q!, k!, v!, segments] : [q!, k!, v!], {
        scale: 0.7,
      });
      const operands = [q!, k!, v!, y!, logSum!, dy] as const;
      return apply('attentionGradient', segments ? [...operands, segments] : [...operands], { scale: 0.7 });
    },
    looseness: 8,
    forwardOnly: true,
  }));
}

/** Stands in for cosines or sines of rotary positions: any numbers do, a rotation is linear in them. */
export function angles(shape: Shape): CaseInput {
  return { ...f32(shape), isData: true };
}

function rotaries(): ConformanceCase[] {
  const settings: readonly (readonly [Shape, number, boolean])[] = [
    [[2, 3, 2, 4], 1, false],
    [[2, 3, 2, 4], 2, false],
    [[1, 5, 3, 8], 1, true],
    [[2, 1, 1, 2], 2, true],
  ];
  return settings.map(([x, batch, interleaved]) =>
    one(
      `${formatShape(x)}${interleaved ? ' interleaved' : ''}, angles [${batch}]`,
      [f32(x), angles([batch, x[1]!, x[3]! / 2]), angles([batch, x[1]!, x[3]! / 2])],
      (value, cos, sin) => rotary(value!, cos!, sin!, { interleaved }),
    ),
  );
}

const layer = block('layer', (p: { w: Tensor; v: Tensor }, x: Tensor) =>
  x.add(matmul(gelu(matmul(rmsNorm(x), p.w)), p.v)),
);
const recomputed = checkpoint((w: Tensor, x: Tensor) => matmul(x, w).tanh(), 'recomputed');
const pair = block('pair', (x: Tensor, y: Tensor) => ({ sum: x.add(y), product: x.mul(y), same: x }));
const outer = block('outer', (p: { w: Tensor; v: Tensor }, x: Tensor) => layer(p, layer(p, x)).mul(0.5));

function calls(): ConformanceCase[] {
  const weights = [f32([4, 6]), f32([6, 4])];
  return [
    one(
      'three layers, shared weights',
      [...weights, f32([3, 4])],
      (w, v, x) => [0, 1, 2].reduce((h) => layer({ w: w!, v: v! }, h), x!),
      { looseness: 8 },
    ),
    one(
      'two layers of their own',
      [...weights, ...weights, f32([3, 4])],
      (w, v, w2, v2, x) => layer({ w: w2!, v: v2! }, layer({ w: w!, v: v! }, x!)),
      { looseness: 8 },
    ),
    one('recomputed', [f32([4, 4]), f32([3, 4])], (w, x) => recomputed(w!, recomputed(w!, x!)), {
      looseness: 4,
    }),
    one('nested', [...weights, f32([3, 4])], (w, v, x) => outer({ w: w!, v: v! }, x!.add(1)), {
      looseness: 16,
    }),
    {
      name: 'several results, one an operand',
      inputs: [f32([2, 3]), f32([2, 3])],
      build: (x, y) => Object.values(pair(x!, y!)),
    },
    one('one result used', [f32([2, 3]), f32([2, 3])], (x, y) => pair(x!, y!).product),
    one('the same operand twice', [f32([2, 3])], (x) => pair(x!, x!).product),
    one('a constant operand', [f32([2, 3])], (x) =>
      pair(x!, constant([2], [2, 3])).product.add(pair(x!, constant([3], [2, 3])).sum),
    ),
    one('operations between calls', [f32([2, 3])], (x) =>
      pair(pair(x!, x!.exp()).product.tanh(), x!.neg()).sum.exp(),
    ),
  ];
}

/** Conformance cases of every operation; one that has none does not compile. */
export const cases: { readonly [K in Op]: readonly ConformanceCase[] } = {
  input: [
    {
      name: 'given back',
      inputs: [f32([2, 3]), i32([2], [4, -5])],
      build: (x, i) => [x!, i!],
      forwardOnly: true,
    },
    { name: 'given back twice', inputs: [f32([2, 3])], build: (x) => [x!, x!], forwardOnly: true },
    { name: 'not used', inputs: [f32([2, 3]), f32([4])], build: (x) => [x!.neg()] },
  ],
  constant: [
    one('filled', [f32([2, 3])], (x) => constant([1.25], [2, 3]).mul(x!)),
    one('rounded to bf16', [f32([2])], (x) => x!.mul(constant([1.01], [1], 'bf16').cast('f32'))),
    one(
      'minus zero beside zero',
      [f32([2], [1, 2])],
      (x) =>
        constant([0], [])
          .add(x!)
          .div(constant([-0], []))
          .less(0),
      { forwardOnly: true },
    ),
    one('listed', [f32([2, 3])], (x) => x!.add(constant([1, 2, 3, 4, 5, 6], [2, 3]))),
    {
      name: 'alone',
      inputs: [],
      build: () => [constant([7, -8], [2], 'i32'), constant([1, 0], [2], 'bool')],
      forwardOnly: true,
    },
  ],

  neg: [...unary((x) => x.neg()), integers((a) => a.neg())],
  abs: unary((x) => x.abs(), 'distinct'),
  exp: unary((x) => x.exp()),
  log: unary((x) => x.log(), 'positive'),
  sqrt: unary((x) => x.sqrt(), 'positive'),
  sin: unary((x) => x.sin()),
  cos: unary((x) => x.cos()),
  tanh: unary((x) => x.tanh()),
  sigmoid: unary((x) => x.sigmoid()),
  gelu: [...unary(gelu), one('far out', [f32([6], [-30, -9, -0.001, 0.001, 9, 30])], (x) => gelu(x!))],
  silu: [...unary(silu), one('far out', [f32([6], [-60, -9, -0.001, 0.001, 9, 60])], (x) => silu(x!))],

  add: [...binary((a, b) => a.add(b)), integers((a, b) => a.add(b))],
  sub: [...binary((a, b) => a.sub(b)), integers((a, b) => a.sub(b))],
  mul: [...binary((a, b) => a.mul(b)), integers((a, b) => a.mul(b))],
  div: binary((a, b) => a.div(b), 'positive'),
  maximum: [...binary((a, b) => a.maximum(b), 'distinct').slice(0, -1), integers((a, b) => a.maximum(b))],
  minimum: [...binary((a, b) => a.minimum(b), 'distinct').slice(0, -1), integers((a, b) => a.minimum(b))],
  equal: [...binary((a, b) => a.equal(b), 'normal', { forwardOnly: true }), integers((a, b) => a.equal(b))],
  less: [...binary((a, b) => a.less(b), 'normal', { forwardOnly: true }), integers((a, b) => a.less(b))],
  where: [
    one('broadcast', [f32([3, 1]), f32([1, 4]), f32([])], (c, a, b) => where(c!.less(0.1), a!, b!)),
    one('numbers', [f32([5])], (x) => where(x!.less(0), -1, x!)),
    one('i32', [f32([4]), i32([4], [1, 2, 3, 4])], (x, i) => where(x!.less(0), i!, i!.neg()), {
      forwardOnly: true,
    }),
    one('bool', [f32([4]), f32([4])], (x, y) => where(x!.less(0), x!.less(y!), y!.less(0)), {
      forwardOnly: true,
    }),
  ],
  cast: [
    one('f32 to i32', [f32([6], [-2.7, -0.5, 0, 0.5, 2.7, 1e6])], (x) => x!.cast('i32'), {
      forwardOnly: true,
    }),
    one('i32 to f32', [i32([4], [-3, 0, 2, 16777216])], (x) => x!.cast('f32'), { forwardOnly: true }),
    one('f32 to bool', [f32([4], [-2.7, 0, 0.5, 1])], (x) => x!.cast('bool'), { forwardOnly: true }),
    one('bool to f32', [of('bool', [3], [1, 0, 1])], (x) => x!.cast('f32'), { forwardOnly: true }),
    one('through bf16', [f32([33])], (x) => x!.cast('bf16').cast('f32').mul(3)),
    one('through f16', [f32([33])], (x) => x!.cast('f16').cast('f32').mul(3)),
    one('f16 in and out', [of('f16', [9])], (x) => x!.cast('f32').mul(0.5).cast('f16'), {
      forwardOnly: true,
    }),
    one('bf16 in and out', [of('bf16', [9])], (x) => x!.cast('f32').mul(0.5).cast('bf16'), {
      forwardOnly: true,
    }),
  ],

  sum: [...reductions((x, axes, keepDims) => x.sum(axes, keepDims)), integers((a, b) => a.mul(b).sum([1]))],
  max: [...reductions((x, axes, keepDims) => x.max(axes, keepDims)), integers((a) => a.max([0]))],
  softmax: [
    ...rowwise(softmax),
    one('large values', [f32([2, 4], [100, 101, 99, -400, 0, 0, 0, 1e4])], (x) => softmax(x!)),
  ],
  layerNorm: rowwise((x) => layerNorm(x, 1e-3)),
  rmsNorm: rowwise((x) => rmsNorm(x, 1e-3)),

  matmul: matmuls(),
  convolution: convolutions(),
  convolutionInputGradient: convolutionGradients('convolutionInputGradient'),
  convolutionKernelGradient: convolutionGradients('convolutionKernelGradient'),
  attention: attentions(),
  attentionGradient: attentionGradients(),
  rotary: rotaries(),

  reshape: [
    one('split and join', [f32([2, 6])], (x) => x!.reshape([3, 2, 2]).exp().reshape([-1])),
    one('scalar', [f32([1, 1])], (x) => x!.reshape([])),
    one('nothing', [f32([2, 0, 4])], (x) => x!.reshape([0, 8]).exp()),
    one('i32', [i32([4], [1, 2, 3, 4])], (x) => x!.reshape([2, 2]), { forwardOnly: true }),
  ],
  transpose: [
    one('last two', [f32([2, 3, 5])], (x) => x!.transpose()),
    one('rotation', [f32([2, 3, 5, 1])], (x) => x!.transpose([2, 3, 0, 1])),
    one('bool', [f32([2, 3])], (x) => x!.less(0).transpose(), { forwardOnly: true }),
  ],
  broadcast: [
    one('new axes', [f32([3])], (x) => x!.broadcastTo([2, 4, 3])),
    one('grown axes', [f32([2, 1, 3])], (x) => x!.broadcastTo([2, 4, 3])),
    one('scalar', [f32([])], (x) => x!.broadcastTo([2, 2])),
    one('bool', [f32([2, 1])], (x) => x!.less(0).broadcastTo([2, 3]), { forwardOnly: true }),
  ],
  slice: [
    one('middle', [f32([5, 4])], (x) => x!.slice(0, 1, 4).slice(1, 2)),
    one('single', [f32([3, 3, 3])], (x) => x!.slice(1, 2, 3)),
    { name: 'split', inputs: [f32([2, 7])], build: (x) => x!.split(-1, [1, 2, 4]) },
  ],
  concat: [
    one('axis 0', [f32([1, 3]), f32([2, 3])], (a, b) => concat([a!, b!], 0)),
    one('last axis, thrice', [f32([2, 1]), f32([2, 3])], (a, b) => concat([a!, b!, a!], -1)),
    one('i32', [i32([2], [1, 2])], (x) => concat([x!, x!], 0), { forwardOnly: true }),
  ],
  pad: [
    one('both sides', [f32([2, 3])], (x) =>
      pad(x!, [
        [1, 2],
        [0, 1],
      ]),
    ),
    one('one axis', [f32([2, 2, 2])], (x) =>
      pad(x!, [
        [0, 0],
        [3, 0],
        [0, 0],
      ]),
    ),
    one('i32', [i32([2], [1, 2])], (x) => pad(x!, [[1, 1]]), { forwardOnly: true }),
  ],

  gather: [
    one('rows', [f32([5, 3]), i32([2, 2], [4, 0, 4, 1])], (t, i) => gather(t!, i!)),
    one('vector', [f32([5]), i32([3], [1, 1, 1])], (t, i) => gather(t!, i!)),
    one('scalar index', [f32([4, 2, 2]), i32([], [3])], (t, i) => gather(t!, i!)),
  ],
  scatterAdd: [
    one('repeated rows', [i32([4], [2, 0, 2, 2]), f32([4, 3])], (i, u) => scatterAdd(i!, u!, 5)),
    one('matrix of indices', [i32([2, 2], [1, 0, 1, 1]), f32([2, 2])], (i, u) => scatterAdd(i!, u!, 2)),
    one(
      'many updates of few rows',
      [
        i32(
          [20000],
          Array.from({ length: 20000 }, (_, i) => i % 2),
        ),
        f32([20000, 2]),
      ],
      (i, u) => scatterAdd(i!, u!, 2),
      { looseness: 20 },
    ),
    one(
      'a large table',
      [
        i32(
          [300],
          Array.from({ length: 300 }, (_, i) => (i * 7919) % 64),
        ),
        f32([300]),
      ],
      (i, u) => scatterAdd(i!, u!, 60000),
      { looseness: 4 },
    ),
  ],

  allReduce: [one('one process', [f32([3, 2])], (x) => allReduce(x!))],
  allGather: [one('one process', [f32([3, 2])], (x) => allGather(x!, 1))],
  reduceScatter: [one('one process', [f32([3, 2])], (x) => reduceScatter(x!, 1))],

  call: calls(),
};
