import { type DType, isFloat } from './dtype.ts';
import {
  at,
  broadcastShapes,
  elementCount,
  expectShape,
  formatShape,
  GraphError,
  normalizeAxis,
  type Shape,
  sameShape,
  type TensorType,
} from './shape.ts';
import type { Attributes, ConvolutionGeometry, Op, Operands } from './vocabulary.ts';

/** Types of an operation's results from those of its operands. Throws {@link GraphError} when they do not fit. */
export type ShapeRule<K extends Op> = (
  operands: Operands<K, TensorType>,
  attributes: Attributes<K>,
) => readonly TensorType[];

/** The shape rule of every operation. */
export const shapeRules: { readonly [K in Op]: ShapeRule<K> } = {
  input: (_, { shape, dtype }) => [validType({ shape, dtype })],
  constant: (_, { shape, dtype, values }) => {
    require(values.length === 1 || values.length === elementCount(shape), () =>
      `${formatShape(shape)} needs 1 or ${elementCount(shape)} values, got ${values.length}`);
    require(holds(dtype, values), () =>
      `${dtype} cannot hold ${values.find((value) => !holds(dtype, [value]))}; cast first`);
    return [validType({ shape, dtype })];
  },

  neg: numeric,
  abs: float,
  exp: float,
  log: float,
  sqrt: float,
  sin: float,
  cos: float,
  tanh: float,
  sigmoid: float,
  gelu: float,
  silu: float,

  add: ([a, b]) => [numbers(elementwise(a, b))],
  sub: ([a, b]) => [numbers(elementwise(a, b))],
  mul: ([a, b]) => [numbers(elementwise(a, b))],
  div: ([a, b]) => [floats(elementwise(a, b))],
  maximum: ([a, b]) => [numbers(elementwise(a, b))],
  minimum: ([a, b]) => [numbers(elementwise(a, b))],
  equal: ([a, b]) => [{ ...elementwise(a, b), dtype: 'bool' }],
  less: ([a, b]) => [{ ...numbers(elementwise(a, b)), dtype: 'bool' }],
  where: ([condition, a, b]) => {
    require(condition.dtype === 'bool', () => `the condition must be bool, got ${condition.dtype}`);
    const { shape, dtype } = elementwise(a, b);
    return [{ shape: broadcastShapes(condition.shape, shape), dtype }];
  },
  cast: ([x], { dtype }) => [computed({ shape: x.shape, dtype })],

  sum: ([x], attributes) => [numbers(reduced(x, attributes))],
  max: ([x], attributes) => {
    require(attributes.axes.every((axis) => x.shape[axis] !== 0), () =>
      `${formatShape(x.shape)} has nothing along axes ${attributes.axes}`);
    return [numbers(reduced(x, attributes))];
  },
  softmax: rows,
  layerNorm: rows,
  rmsNorm: rows,

  matmul: ([a, b], { transposeA, transposeB }) => {
    require(a.shape.length >= 2 && b.shape.length >= 2, () => 'both operands need at least two axes');
    const [m, ka] = lastTwo(a.shape, transposeA);
    const [kb, n] = lastTwo(b.shape, transposeB);
    require(ka === kb, () => `inner sizes differ: ${ka} and ${kb} (transposes ${transposeA}, ${transposeB})`);
    const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
    return [floats({ shape: [...batch, m, n], dtype: sameDType(a, b) })];
  },
  convolution: ([x, kernel], geometry) => {
    const { spatial, kernelSize } = convolutionAxes(x, kernel, geometry);
    require(x.shape.at(-1) === kernel.shape.at(-1), () =>
      `x has ${x.shape.at(-1)} channels, the kernel takes ${kernel.shape.at(-1)}`);
    const out = windows(spatial, kernelSize, geometry);
    return [floats({ shape: [at(x.shape, 0), ...out, at(kernel.shape, 0)], dtype: sameDType(x, kernel) })];
  },
  convolutionInputGradient: ([dy, kernel], { inputSize, ...geometry }) => {
    const { spatial, kernelSize } = convolutionAxes(dy, kernel, geometry);
    require(dy.shape.at(-1) === kernel.shape[0], () =>
      `dy has ${dy.shape.at(-1)} channels, the kernel gives ${kernel.shape[0]}`);
    requireWindows(inputSize, kernelSize, geometry, spatial);
    const shape = [at(dy.shape, 0), ...inputSize, at(kernel.shape, kernel.shape.length - 1)];
    return [floats({ shape, dtype: sameDType(dy, kernel) })];
  },
  convolutionKernelGradient: ([x, dy], { kernelSize, ...geometry }) => {
    require(x.shape.length === dy.shape.length && x.shape[0] === dy.shape[0], () =>
      'x and dy differ in batch or rank');
    requireWindows(x.shape.slice(1, -1), kernelSize, geometry, dy.shape.slice(1, -1));
    const shape = [at(dy.shape, dy.shape.length - 1), ...kernelSize, at(x.shape, x.shape.length - 1)];
    return [floats({ shape, dtype: sameDType(x, dy) })];
  },
  attention: ([q, k, v, segments]) => attentionResults(q, k, v, segments),
  attentionGradient: ([q, k, v, y, logSum, dy, segments]) => {
    const [expectedY, expectedLogSum] = attentionResults(q, k, v, segments);
    for (const [name, value, expected] of [
      ['y', y, expectedY],
      ['dy', dy, expectedY],
      ['logSum', logSum, expectedLogSum],
    ] as const) {
      require(sameShape(value.shape, expected.shape), () =>
        `${name} must be ${formatShape(expected.shape)}, got ${formatShape(value.shape)}`);
    }
    return [q, k, v].map(typeOf);
  },
  rotary: ([x, cos, sin]) => {
    const axes = expectShape(x, 'B S H D', {}, 'x');
    const half = axes.D / 2;
    require(Number.isInteger(half), () => `needs an even head size, got ${axes.D}`);
    for (const angles of [cos, sin]) {
      const { N } = expectShape(angles, 'N S Half', { S: axes.S, Half: half }, 'cos and sin');
      require(N === 1 || N === axes.B, () => `cos and sin must have a batch of 1 or ${axes.B}, got ${N}`);
      sameDType(x, angles);
    }
    return [floats(typeOf(x))];
  },

  reshape: ([x], { shape }) => {
    require(elementCount(shape) === elementCount(x.shape), () =>
      `${formatShape(x.shape)} has ${elementCount(x.shape)} elements, ${formatShape(shape)} ${elementCount(shape)}`);
    return [validType({ shape, dtype: x.dtype })];
  },
  transpose: ([x], { permutation }) => {
    const sorted = [...permutation].sort((a, b) => a - b);
    require(sorted.length === x.shape.length && sorted.every((axis, index) => axis === index), () =>
      `[${permutation}] is not a permutation of ${x.shape.length} axes`);
    return [{ shape: permutation.map((axis) => at(x.shape, axis)), dtype: x.dtype }];
  },
  broadcast: ([x], { shape }) => {
    require(sameShape(broadcastShapes(x.shape, shape), shape), () =>
      `${formatShape(x.shape)} does not broadcast to ${formatShape(shape)}`);
    return [validType({ shape, dtype: x.dtype })];
  },
  slice: ([x], { starts, ends }) => {
    require(starts.length === x.shape.length && ends.length === x.shape.length, () =>
      'needs a range for every axis');
    const shape = x.shape.map((size, axis) => {
      const [start, end] = [at(starts, axis), at(ends, axis)];
      require(0 <= start && start <= end && end <= size, () =>
        `range ${start}..${end} is outside axis ${axis} of size ${size}`);
      return end - start;
    });
    return [validType({ shape, dtype: x.dtype })];
  },
  concat: (operands, { axis }) => {
    require(operands.length > 0, () => 'needs at least one operand');
    const first = at(operands, 0);
    require(normalizeAxis(axis, first.shape.length) === axis, () => `axis ${axis} must not be negative`);
    let total = 0;
    for (const { shape, dtype } of operands) {
      const alike = dtype === first.dtype && shape.length === first.shape.length;
      require(alike && shape.every((size, i) => i === axis || size === first.shape[i]), () =>
        `${dtype}${formatShape(shape)} does not fit ${first.dtype}${formatShape(first.shape)} along axis ${axis}`);
      total += at(shape, axis);
    }
    return [{ shape: first.shape.map((size, i) => (i === axis ? total : size)), dtype: first.dtype }];
  },
  pad: ([x], { before, after }) => {
    const counts = [...before, ...after];
    require(before.length === x.shape.length && after.length === x.shape.length, () =>
      'needs counts for every axis');
    require(counts.every((count) => Number.isInteger(count) && count >= 0), () =>
      `counts must be 0 or more, got ${counts}`);
    return [
      numbers({
        shape: x.shape.map((size, axis) => size + at(before, axis) + at(after, axis)),
        dtype: x.dtype,
      }),
    ];
  },

  gather: ([table, indices]) => {
    requireIndices(indices);
    require(table.shape.length >= 1, () => 'the table needs at least one axis');
    return [{ shape: [...indices.shape, ...table.shape.slice(1)], dtype: table.dtype }];
  },
  scatterAdd: ([indices, updates], { rows }) => {
    requireIndices(indices);
    const leading = updates.shape.slice(0, indices.shape.length);
    require(sameShape(leading, indices.shape), () =>
      `updates ${formatShape(updates.shape)} must start with the indices' axes ${formatShape(indices.shape)}`);
    return [
      floats(
        validType({ shape: [rows, ...updates.shape.slice(indices.shape.length)], dtype: updates.dtype }),
      ),
    ];
  },

  allReduce: float,
  allGather: ([x], { processes }) => [floats({ shape: scaledRows(x, processes, 1), dtype: x.dtype })],
  reduceScatter: ([x], { processes }) => [floats({ shape: scaledRows(x, 1, processes), dtype: x.dtype })],

  call: (operands, { graph }) => {
    require(operands.length === graph.inputs.length, () =>
      `${graph.name} takes ${graph.inputs.length} operands, got ${operands.length}`);
    graph.inputs.forEach((expected, index) => {
      const found = at(operands, index);
      require(found.dtype === expected.dtype && sameShape(found.shape, expected.shape), () =>
        `operand ${index} of ${graph.name} must be ${expected.dtype}${formatShape(expected.shape)}, got ${found.dtype}${formatShape(found.shape)}`);
    });
    return graph.outputs.map(typeOf);
  },
};

/** Spatial sizes that a convolution's window visits: floor((size + padding - kernel) / stride) + 1 per axis. */
export function windows(
  spatial: Shape,
  kernelSize: Shape,
  { strides, padding }: ConvolutionGeometry,
): number[] {
  return spatial.map((size, axis) => {
    const [before, after] = at(padding, axis);
    const room = size + before + after - at(kernelSize, axis);
    require(room >= 0, () =>
      `a kernel of ${at(kernelSize, axis)} does not fit ${size + before + after} padded elements of axis ${axis + 1}`);
    return Math.floor(room / at(strides, axis)) + 1;
  });
}

function require(holds: boolean, message: () => string): void {
  if (!holds) throw new GraphError(message());
}

function typeOf({ shape, dtype }: TensorType): TensorType {
  return { shape, dtype };
}

function validType(type: TensorType): TensorType {
  require(type.shape.every((size) => Number.isSafeInteger(size) && size >= 0), () =>
    `sizes must be integers of 0 or more, got ${formatShape(type.shape)}`);
  return computed(type);
}

/** 8-bit floats are for storage: no op gives or takes them yet. */
function computed(type: TensorType): TensorType {
  require(!type.dtype.startsWith('f8'), () => `${type.dtype} is reserved: no operation computes in it yet`);
  return type;
}

function floats(type: TensorType): TensorType {
  require(isFloat(type.dtype), () => `takes floats, got ${type.dtype}`);
  return type;
}

function numbers(type: TensorType): TensorType {
  require(type.dtype !== 'bool', () => 'takes numbers, got bool');
  return type;
}

function float([x]: readonly [TensorType]): readonly TensorType[] {
  return [floats(typeOf(x))];
}

function numeric([x]: readonly [TensorType]): readonly TensorType[] {
  return [numbers(typeOf(x))];
}

function rows([x]: readonly [TensorType]): readonly TensorType[] {
  require(x.shape.length >= 1 && x.shape.at(-1) !== 0, () =>
    `needs a last axis that is not empty, got ${formatShape(x.shape)}`);
  return [floats(typeOf(x))];
}

function sameDType(a: TensorType, b: TensorType): DType {
  require(a.dtype === b.dtype, () => `dtypes differ: ${a.dtype} and ${b.dtype}; cast one of them`);
  return a.dtype;
}

function elementwise(a: TensorType, b: TensorType): TensorType {
  return { shape: broadcastShapes(a.shape, b.shape), dtype: sameDType(a, b) };
}

function reduced(x: TensorType, { axes, keepDims }: Attributes<'sum'>): TensorType {
  const ascending = axes.every((axis, index) => index === 0 || axis > at(axes, index - 1));
  const inRange = axes.every((axis) => Number.isInteger(axis) && axis >= 0 && axis < x.shape.length);
  require(ascending && inRange, () =>
    `axes [${axes}] must be ascending, distinct and below ${x.shape.length}`);
  const shape = keepDims
    ? x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size))
    : x.shape.filter((_, axis) => !axes.includes(axis));
  return { shape, dtype: x.dtype };
}

function lastTwo(shape: Shape, transposed: boolean): readonly [number, number] {
  const [rowCount, columnCount] = [at(shape, shape.length - 2), at(shape, shape.length - 1)];
  return transposed ? [columnCount, rowCount] : [rowCount, columnCount];
}

function convolutionAxes(x: TensorType, kernel: TensorType, { strides, padding }: ConvolutionGeometry) {
  const rank = x.shape.length - 2;
  require(rank >= 1 && kernel.shape.length === rank + 2, () =>
    `${formatShape(x.shape)} and kernel ${formatShape(kernel.shape)} need the same rank, 3 or more`);
  require(strides.length === rank && padding.length === rank, () =>
    `needs a stride and a padding for each of ${rank} spatial axes`);
  require(strides.every((stride) => Number.isInteger(stride) && stride >= 1), () =>
    `strides must be 1 or more, got ${strides}`);
  require(padding.flat().every((count) => Number.isInteger(count) && count >= 0), () =>
    `padding must be 0 or more, got ${padding}`);
  return { spatial: x.shape.slice(1, -1), kernelSize: kernel.shape.slice(1, -1) };
}

function requireWindows(
  inputSize: Shape,
  kernelSize: Shape,
  geometry: ConvolutionGeometry,
  found: Shape,
): void {
  const expected = windows(inputSize, kernelSize, geometry);
  require(sameShape(expected, found), () =>
    `input ${formatShape(inputSize)} and kernel ${formatShape(kernelSize)} give ${formatShape(expected)}, but dy has ${formatShape(found)}`);
}

function attentionResults(
  q: TensorType,
  k: TensorType,
  v: TensorType,
  segments: TensorType | undefined,
): [TensorType, TensorType] {
  const { B, S, H, D } = expectShape(q, 'B S H D', {}, 'q');
  const { T } = expectShape(k, 'B T H D', { B, H, D }, 'k');
  expectShape(v, 'B T H D', { B, T, H, D }, 'v');
  require(B > 0 && S > 0 && T > 0, () => 'needs at least one row, one query and one key');
  if (segments !== undefined) {
    requireIndices(segments);
    expectShape(segments, 'B Offsets', { B }, 'segment offsets');
    require(at(segments.shape, 1) >= 1, () => 'segment offsets need at least one entry');
    require(S === T, () => `segments need as many keys as queries, got ${T} and ${S}`);
  }
  sameDType(q, k);
  return [floats({ shape: q.shape, dtype: sameDType(q, v) }), { shape: [B, H, S], dtype: 'f32' }];
}

function requireIndices({ dtype }: TensorType): void {
  require(dtype === 'i32', () => `indices must be i32, got ${dtype}`);
}

function scaledRows(x: TensorType, factor: number, divisor: number): Shape {
  const rowCount = (at(x.shape, 0) * factor) / divisor;
  require(Number.isInteger(rowCount), () =>
    `axis 0 of size ${x.shape[0]} does not divide among ${divisor} processes`);
  return [rowCount, ...x.shape.slice(1)];
}

/** Whether every value is one that the dtype can hold; floats round. */
function holds(dtype: DType, values: readonly number[]): boolean {
  if (dtype === 'bool') return values.every((value) => value === 0 || value === 1);
  return dtype !== 'i32' || values.every((value) => (value | 0) === value);
}
