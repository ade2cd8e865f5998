import { convolution, rmsNorm, silu } from '../tensor/functions.ts';
import { expectShape, type Shape } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  channelsOf,
  fanIn,
  type Initializer,
  type ParameterSpec,
  type Parameters,
  parameter,
} from './parameters.ts';

/** Parameters of a convolution: kernel [outputs, ..kernel, inputs] and bias [outputs]. */
export interface ConvolutionSpec {
  readonly kernel: ParameterSpec;
  readonly bias: ParameterSpec;
}

/** A 3-d convolution with a kernel over [time, height, width]; default initial weights keep the variance. */
export function convolutionSpec(
  inputs: number,
  outputs: number,
  kernelSize: Shape,
  initializer?: Initializer,
): ConvolutionSpec {
  const taps = kernelSize.reduce((product, size) => product * size, inputs);
  return {
    kernel: parameter([outputs, ...kernelSize, inputs], initializer ?? fanIn(taps)),
    bias: parameter([outputs], { kind: 'zeros' }),
  };
}

/**
 * Causal 3-d convolution: x [B, T, H, W, C] -> [B, T', H', W', outputs]. Time is padded in front only, so that no frame
 * sees a later one and a single frame is a video of length 1; height and width are padded on both sides to keep their
 * size (odd kernels). Strides [time, height, width] default to 1; sizes become ceil(size / stride).
 */
export function causalConvolution(
  { kernel, bias }: Parameters<ConvolutionSpec>,
  x: Tensor,
  strides: readonly [number, number, number] = [1, 1, 1],
): Tensor {
  const { KT, KH, KW } = expectShape(kernel, 'Out KT KH KW In', { In: channelsOf(x) }, 'kernel');
  const padding: [number, number][] = [
    [KT - 1, 0],
    [(KH - 1) / 2, (KH - 1) / 2],
    [(KW - 1) / 2, (KW - 1) / 2],
  ];
  return convolution(x, kernel, { strides, padding }).add(bias);
}

/** Parameters of a residual convolution block. */
export interface ResidualBlockSpec {
  readonly norm1: ParameterSpec;
  readonly conv1: ConvolutionSpec;
  readonly norm2: ParameterSpec;
  readonly conv2: ConvolutionSpec;
  /** Maps the input to another number of channels for the sum; absent when the number stays. */
  readonly shortcut?: ConvolutionSpec;
}

/** A residual block of two 3x3x3 causal convolutions, from `inputs` to `outputs` channels. */
export function residualBlockSpec(inputs: number, outputs: number): ResidualBlockSpec {
  return {
    norm1: parameter([inputs], { kind: 'ones' }),
    conv1: convolutionSpec(inputs, outputs, [3, 3, 3]),
    norm2: parameter([outputs], { kind: 'ones' }),
    conv2: convolutionSpec(outputs, outputs, [3, 3, 3], { kind: 'zeros' }),
    ...(inputs !== outputs && { shortcut: convolutionSpec(inputs, outputs, [1, 1, 1]) }),
  };
}

/** x + conv(silu(norm(conv(silu(norm(x)))))): [B, T, H, W, inputs] -> [B, T, H, W, outputs] (He et al. 2016). */
export function residualBlock(p: Parameters<ResidualBlockSpec>, x: Tensor): Tensor {
  const h = causalConvolution(p.conv1, silu(rmsNorm(x).mul(p.norm1))); // [B, T, H, W, outputs]
  const y = causalConvolution(p.conv2, silu(rmsNorm(h).mul(p.norm2))); // [B, T, H, W, outputs]
  return y.add(p.shortcut === undefined ? x : causalConvolution(p.shortcut, x));
}
