import { at, elementCount, type Shape, type TensorType } from '../../tensor/shape.ts';
import type { Attributes } from '../../tensor/vocabulary.ts';
import type { Emitter, Value } from './emitter.ts';

/** Convolution: our own operator, or ONNX's between transpositions from and to channels-last. */
export function lowerConvolution(
  emit: Emitter,
  x: Value,
  kernel: Value,
  { strides, padding }: Attributes<'convolution'>,
  result: TensorType,
): Value {
  if (isOurs(emit, x.shape)) {
    const channels = { inputs: lastOf(x.shape), outputs: at(kernel.shape, 0) };
    const geometry = geometryOf(
      x.shape,
      result.shape,
      { kernelSize: kernel.shape.slice(1, -1), strides, padding },
      channels,
    );
    return emit.own('Convolution', [x, kernel], [result], {
      geometry,
      result: result.shape,
      biased: [0],
      reversed: [0],
      rounded: [Number(emit.roundsProducts)],
    })[0];
  }
  const y = channelsFirstConv(
    emit,
    toChannelsFirst(emit, x),
    toChannelsFirst(emit, kernel),
    strides,
    padding,
  );
  return emit.reshape(toChannelsLast(emit, y), result.shape);
}

/**
 * Product of a matrix, its rows the last axis of x, and another, [inner, outputs] or transposed, plus a vector for each row if
 * given: by the operator that does convolutions, of one tap.
 */
export function lowerRows(
  emit: Emitter,
  x: Value,
  weights: Value,
  transposed: boolean,
  result: TensorType,
  bias?: Value,
): Value {
  const rows = elementCount(x.shape.slice(0, -1));
  const [inputs, outputs] = [lastOf(x.shape), lastOf(result.shape)];
  const around = { kernelSize: [1], strides: [1], padding: [[0, 0]] } as const;
  const operands = bias === undefined ? [x, weights] : [x, weights, bias];
  return emit.own('Convolution', operands, [result], {
    geometry: geometryOf([1, rows, inputs], [1, rows, outputs], around, { inputs, outputs }),
    result: result.shape,
    biased: [Number(bias !== undefined)],
    reversed: [Number(!transposed)],
    rounded: [0],
  })[0];
}

/** dx: dy, spread by the strides, convolved with the flipped kernel whose channels are swapped. */
export function lowerInputGradient(
  emit: Emitter,
  dy: Value,
  kernel: Value,
  { strides, padding, inputSize }: Attributes<'convolutionInputGradient'>,
  result: TensorType,
): Value {
  const kernelSize = kernel.shape.slice(1, -1);
  const inFront = padding.map(([before], axis) => at(kernelSize, axis) - 1 - before);
  if (
    isOurs(emit, dy.shape) &&
    strides.every((stride) => stride === 1) &&
    inFront.every((size) => size >= 0)
  ) {
    const channels = { inputs: at(kernel.shape, 0), outputs: lastOf(kernel.shape) };
    const around = { kernelSize, strides, padding: inFront.map((before) => [before, 0] as const) };
    const geometry = geometryOf(dy.shape, result.shape, around, channels);
    return emit.own('Convolution', [dy, kernel], [result], {
      geometry,
      result: result.shape,
      biased: [0],
      reversed: [1],
      rounded: [Number(emit.roundsProducts)],
    })[0];
  }
  const spread = spreadOut(emit, toChannelsFirst(emit, dy), strides);
  const rank = kernel.shape.length;
  // [Cout, ..k, Cin] to [Cin, Cout, ..k], every kernel axis reversed.
  const swapped = emit.transpose(kernel, [rank - 1, 0, ...kernelSize.map((_, axis) => axis + 1)]);
  const flipped = kernelSize.reduce((value, _, axis) => reversed(emit, value, axis + 2), swapped);
  const counts = inputSize.map((size, axis) => {
    const before = at(kernelSize, axis) - 1 - at(at(padding, axis), 0);
    return [before, size - at(spread.shape, axis + 2) - before + at(kernelSize, axis) - 1] as const;
  });
  const unit = strides.map(() => 1);
  // A padding larger than the kernel asks for cropping, which Pad does and Conv does not.
  const cropped = counts.map(([before, after]) => [Math.min(before, 0), Math.min(after, 0)] as const);
  const padded = counts.map(([before, after]) => [Math.max(before, 0), Math.max(after, 0)] as const);
  const dx = channelsFirstConv(emit, padSpatial(emit, spread, cropped), flipped, unit, padded);
  return emit.reshape(toChannelsLast(emit, dx), result.shape);
}

/** dkernel: for every kernel tap, the product of dy with the inputs that the tap saw. */
export function lowerKernelGradient(
  emit: Emitter,
  x: Value,
  dy: Value,
  { strides, padding, kernelSize }: Attributes<'convolutionKernelGradient'>,
  result: TensorType,
): Value {
  const [inputs, outputs] = [lastOf(x.shape), lastOf(dy.shape)];
  if (isOurs(emit, x.shape)) {
    const geometry = geometryOf(x.shape, dy.shape, { kernelSize, strides, padding }, { inputs, outputs });
    const rounded = [Number(emit.roundsProducts)];
    return emit.own('KernelGradient', [x, dy], [result], { geometry, result: result.shape, rounded })[0];
  }
  const spatial = dy.shape.slice(1, -1);
  const rows = elementCount(dy.shape.slice(0, -1));
  const padded = padAxes(emit, x, [[0, 0], ...padding, [0, 0]]);
  const dyRows = emit.reshape(dy, [rows, outputs]);
  // Taps along the last kernel axis sit side by side in one product: wider matrices run faster.
  const products = taps(kernelSize.slice(0, -1)).map((tap) => {
    const slab = tap.reduce(
      (value, offset, axis) => window(emit, value, axis + 1, offset, at(spatial, axis), at(strides, axis)),
      padded,
    );
    const last = kernelSize.length - 1;
    const columns = Array.from({ length: at(kernelSize, last) }, (_, offset) =>
      window(emit, slab, last + 1, offset, at(spatial, last), at(strides, last)),
    );
    const width = inputs * columns.length;
    const seen = emit.reshape(emit.concat(columns, x.shape.length - 1), [rows, width]);
    const product = emit.op(
      'Gemm',
      [dyRows, seen],
      { shape: [outputs, width], dtype: x.dtype },
      { transA: 1 },
    );
    return emit.reshape(product, [outputs, 1, width]);
  });
  return emit.reshape(emit.concat(products, 1), result.shape);
}

/** How a kernel goes over its input. */
interface Around {
  readonly kernelSize: Shape;
  readonly strides: readonly number[];
  readonly padding: readonly (readonly [number, number])[];
}

/** Whether our own operators do it: they know three axes besides batch and channels. */
function isOurs(emit: Emitter, shape: Shape): boolean {
  return emit.ownOperators && shape.length <= 5 && elementCount(shape) > 0;
}

/**
 * The attribute `geometry` of `native/convolution.c`. Axes that are missing are of size 1; last ones along which the kernel
 * does nothing become one, since long lines are faster.
 */
function geometryOf(
  from: Shape,
  to: Shape,
  { kernelSize, strides, padding }: Around,
  { inputs, outputs }: { inputs: number; outputs: number },
): number[] {
  const axes = kernelSize.map((size, axis) => ({
    from: at(from, axis + 1),
    to: at(to, axis + 1),
    size,
    stride: at(strides, axis),
    pad: at(at(padding, axis), 0),
  }));
  const isIdle = ({ size, stride, pad, from: before, to: after }: (typeof axes)[number]) =>
    size === 1 && stride === 1 && pad === 0 && before === after;
  const active = axes.findLastIndex((axis) => !isIdle(axis)) + 1;
  const [kept, idle] = [axes.slice(0, active), axes.slice(active)];
  const length = idle.reduce((product, axis) => product * axis.from, 1);
  const line = { from: length, to: length, size: 1, stride: 1, pad: 0 };
  const joined = idle.length > 0 ? [...kept, line] : kept;
  const one = { from: 1, to: 1, size: 1, stride: 1, pad: 0 };
  const three = [...new Array<typeof one>(3 - joined.length).fill(one), ...joined];
  const list = (name: keyof typeof one) => three.map((axis) => axis[name]);
  return [
    at(from, 0),
    ...list('from'),
    inputs,
    ...list('to'),
    outputs,
    ...list('size'),
    ...list('stride'),
    ...list('pad'),
  ];
}

function lastOf(shape: Shape): number {
  return at(shape, shape.length - 1);
}

function channelsFirstConv(
  emit: Emitter,
  x: Value,
  kernel: Value,
  strides: readonly number[],
  padding: readonly (readonly [number, number])[],
): Value {
  const spatial = x.shape.slice(2).map((size, axis) => {
    const [before, after] = at(padding, axis);
    return Math.floor((size + before + after - at(kernel.shape, axis + 2)) / at(strides, axis)) + 1;
  });
  const type = { shape: [at(x.shape, 0), at(kernel.shape, 0), ...spatial], dtype: x.dtype };
  const pads = [...padding.map(([before]) => before), ...padding.map(([, after]) => after)];
  return emit.op('Conv', [x, kernel], type, { kernel_shape: kernel.shape.slice(2), strides, pads });
}

/** Inserts zeros between neighbours: each element becomes `stride` of them along each spatial axis. */
function spreadOut(emit: Emitter, x: Value, strides: readonly number[]): Value {
  return strides.reduce((value, stride, axis) => {
    if (stride === 1) return value;
    const split = emit.reshape(value, [...value.shape.slice(0, axis + 3), 1, ...value.shape.slice(axis + 3)]);
    const counts = split.shape.map((_, i) => [0, i === axis + 3 ? stride - 1 : 0] as const);
    return emit.reshape(
      padAxes(emit, split, counts),
      value.shape.map((size, i) => (i === axis + 2 ? size * stride : size)),
    );
  }, x);
}

function padSpatial(emit: Emitter, x: Value, counts: readonly (readonly [number, number])[]): Value {
  return padAxes(emit, x, [[0, 0], [0, 0], ...counts]);
}

/** Zeros around x, or with negative counts elements cut off. */
function padAxes(emit: Emitter, x: Value, counts: readonly (readonly [number, number])[]): Value {
  if (counts.every(([before, after]) => before === 0 && after === 0)) return x;
  const shape = x.shape.map((size, axis) => size + at(counts, axis)[0] + at(counts, axis)[1]);
  const pads = [...counts.map(([before]) => before), ...counts.map(([, after]) => after)];
  return emit.op('Pad', [x, emit.integers(pads)], { shape, dtype: x.dtype });
}

function window(emit: Emitter, x: Value, axis: number, offset: number, count: number, stride: number): Value {
  return emit.slice(x, axis, offset, offset + (count - 1) * stride + 1, stride);
}

function reversed(emit: Emitter, x: Value, axis: number): Value {
  if (at(x.shape, axis) === 1) return x;
  const operands = [
    x,
    emit.integers([-1]),
    emit.integers([-(2 ** 31)]),
    emit.integers([axis]),
    emit.integers([-1]),
  ];
  return emit.op('Slice', operands, x);
}

function taps(kernelSize: Shape): number[][] {
  return kernelSize.reduce<number[][]>(
    (found, size) => found.flatMap((tap) => Array.from({ length: size }, (_, i) => [...tap, i])),
    [[]],
  );
}

function toChannelsFirst(emit: Emitter, x: Value): Value {
  const rank = x.shape.length;
  return emit.transpose(x, [0, rank - 1, ...Array.from({ length: rank - 2 }, (_, axis) => axis + 1)]);
}

function toChannelsLast(emit: Emitter, x: Value): Value {
  const rank = x.shape.length;
  return emit.transpose(x, [0, ...Array.from({ length: rank - 2 }, (_, axis) => axis + 2), 1]);
}
