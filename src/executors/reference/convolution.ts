import { at, elementCount, type Shape, type TensorType } from '../../tensor/shape.ts';
import type { Attributes, ConvolutionGeometry } from '../../tensor/vocabulary.ts';
import { forEachIndex, positionOf, type Values } from './values.ts';

/** Sum over the window of x times kernel, for every output position and channel. */
export function convolution(
  [x, kernel]: readonly [Values, Values],
  geometry: Attributes<'convolution'>,
  results: readonly TensorType[],
): [Float64Array] {
  const output = at(results, 0).shape;
  const y = new Float64Array(elementCount(output));
  const [inputs, outputs] = [at(x.shape, x.shape.length - 1), at(output, output.length - 1)];
  forEachTap(x.shape, kernel.shape, output, geometry, (xAt, tap, yAt) => {
    for (let o = 0; o < outputs; o++) {
      const kernelAt = kernelPosition(o, tap, kernel.shape);
      for (let i = 0; i < inputs; i++)
        y[yAt + o] = at(y, yAt + o) + at(x.data, xAt + i) * at(kernel.data, kernelAt + i);
    }
  });
  return [y];
}

/** dx of {@link convolution}: each product's gradient goes to the x it came from. */
export function convolutionInputGradient(
  [dy, kernel]: readonly [Values, Values],
  geometry: Attributes<'convolutionInputGradient'>,
  results: readonly TensorType[],
): [Float64Array] {
  const input = at(results, 0).shape;
  const dx = new Float64Array(elementCount(input));
  const [inputs, outputs] = [at(input, input.length - 1), at(dy.shape, dy.shape.length - 1)];
  forEachTap(input, kernel.shape, dy.shape, geometry, (xAt, tap, yAt) => {
    for (let o = 0; o < outputs; o++) {
      const kernelAt = kernelPosition(o, tap, kernel.shape);
      for (let i = 0; i < inputs; i++)
        dx[xAt + i] = at(dx, xAt + i) + at(dy.data, yAt + o) * at(kernel.data, kernelAt + i);
    }
  });
  return [dx];
}

/** dkernel of {@link convolution}: each product's gradient goes to the weight it came from. */
export function convolutionKernelGradient(
  [x, dy]: readonly [Values, Values],
  geometry: Attributes<'convolutionKernelGradient'>,
  results: readonly TensorType[],
): [Float64Array] {
  const kernel = at(results, 0).shape;
  const dkernel = new Float64Array(elementCount(kernel));
  const [inputs, outputs] = [at(x.shape, x.shape.length - 1), at(dy.shape, dy.shape.length - 1)];
  forEachTap(x.shape, kernel, dy.shape, geometry, (xAt, tap, yAt) => {
    for (let o = 0; o < outputs; o++) {
      const kernelAt = kernelPosition(o, tap, kernel);
      for (let i = 0; i < inputs; i++)
        dkernel[kernelAt + i] = at(dkernel, kernelAt + i) + at(x.data, xAt + i) * at(dy.data, yAt + o);
    }
  });
  return [dkernel];
}

/** Every (input position, kernel tap, output position) that meet; positions are of channel 0. */
function forEachTap(
  input: Shape,
  kernel: Shape,
  output: Shape,
  { strides, padding }: ConvolutionGeometry,
  visit: (inputAt: number, tap: readonly number[], outputAt: number) => void,
): void {
  forEachIndex(output.slice(0, -1), (outputIndex) => {
    const [sample = 0, ...window] = outputIndex;
    forEachIndex(kernel.slice(1, -1), (tap) => {
      const inputIndex = window.map(
        (i, axis) => i * at(strides, axis) + at(tap, axis) - at(at(padding, axis), 0),
      );
      if (inputIndex.some((i, axis) => i < 0 || i >= at(input, axis + 1))) return;
      visit(positionOf([sample, ...inputIndex, 0], input), tap, positionOf([...outputIndex, 0], output));
    });
  });
}

function kernelPosition(outputChannel: number, tap: readonly number[], kernel: Shape): number {
  return positionOf([outputChannel, ...tap, 0], kernel);
}
