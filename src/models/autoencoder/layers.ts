import { type ConvolutionSpec, convolutionSpec } from '../../nn/convolution.ts';
import { type LinearSpec, linear, linearSpec } from '../../nn/linear.ts';
import { channelsOf, type ParameterSpec, type Parameters, parameter } from '../../nn/parameters.ts';
import { concat, convolution, pad, rmsNorm, silu } from '../../tensor/functions.ts';
import { expectShape } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import type { Borders } from './borders.ts';

/** Sizes [time, height, width] of a group of positions that becomes one position. */
export type Group = readonly [time: number, height: number, width: number];

/**
 * Space and time to depth: each group of positions becomes one, its channels side by side.
 * [B, T, H, W, C] -> [B, T/t, H/h, W/w, t h w C]
 */
export function mergePositions(x: Tensor, [t, h, w]: Group): Tensor {
  const { B, T, H, W, C } = expectShape(x, 'B T H W C');
  const [frames, rows, columns] = [T / t, H / h, W / w];
  return x
    .reshape([B * frames, t, rows, h, columns, w * C])
    .transpose([0, 2, 4, 1, 3, 5])
    .reshape([B, frames, rows, columns, t * h * w * C]);
}

/** Depth to space and time, the inverse of {@link mergePositions}: [B, T, H, W, t h w C] -> [B, tT, hH, wW, C] */
export function splitPositions(x: Tensor, [t, h, w]: Group): Tensor {
  const { B, T, H, W, D } = expectShape(x, 'B T H W D');
  return x
    .reshape([B * T, H, W, t, h, D / (t * h)])
    .transpose([0, 3, 1, 4, 2, 5])
    .reshape([B, T * t, H * h, W * w, D / (t * h * w)]);
}

/** A 3x3 convolution of each frame: the parameters. */
export function frameConvolutionSpec(inputs: number, outputs: number): ConvolutionSpec {
  return convolutionSpec(inputs, outputs, [3, 3]);
}

/** A 3x3 convolution of each frame by itself, sides kept: [B, T, H, W, inputs] -> [B, T, H, W, outputs] */
export function frameConvolution({ kernel, bias }: Parameters<ConvolutionSpec>, x: Tensor): Tensor {
  const { B, T, H, W, C } = expectShape(x, 'B T H W C');
  const padding = [[1, 1] as const, [1, 1] as const];
  const y = convolution(x.reshape([B * T, H, W, C]), kernel, { padding }).add(bias); // [BT, H, W, outputs]
  return y.reshape([B, T, H, W, channelsOf(y)]);
}

/** Frames that one output frame of {@link timeConvolution} sees: itself and those before it. */
const timeTaps = 3;

/**
 * A causal convolution along time alone: each frame from itself and the two before it, position by position. Written
 * as a linear map of the three frames' channels side by side. [B, T, H, W, inputs] -> [B, T, H, W, outputs]
 */
export function timeConvolution(p: Parameters<LinearSpec>, x: Tensor, borders: Borders): Tensor {
  const { T } = expectShape(x, 'B T H W C');
  const joined = borders.precede(x, timeTaps - 1); // [B, T+2, H, W, C]
  const taps = Array.from({ length: timeTaps }, (_, tap) => joined.slice(1, tap, tap + T));
  return linear(p, concat(taps, -1));
}

/** Parameters of a residual block. */
export interface BlockSpec {
  readonly norm1: ParameterSpec;
  readonly space: ConvolutionSpec;
  readonly norm2: ParameterSpec;
  readonly time: LinearSpec;
}

/** A residual block of `channels`, the identity at first. */
export function blockSpec(channels: number): BlockSpec {
  return {
    norm1: parameter([channels], { kind: 'ones' }),
    space: frameConvolutionSpec(channels, channels),
    norm2: parameter([channels], { kind: 'ones' }),
    time: linearSpec(timeTaps * channels, channels, { kind: 'zeros' }),
  };
}

/**
 * x + time(silu(norm(space(silu(norm(x)))))): a residual block (He et al. 2016) whose 3x3x3 convolution is factored
 * into 3x3 in space and 3 in time (Tran et al. 2018, "(2+1)D"). [B, T, H, W, C] -> [B, T, H, W, C]
 */
export function residualBlock(p: Parameters<BlockSpec>, x: Tensor, borders: Borders): Tensor {
  const h = frameConvolution(p.space, silu(rmsNorm(x).mul(p.norm1)));
  return x.add(timeConvolution(p.time, silu(rmsNorm(h).mul(p.norm2)), borders));
}

/**
 * Halves time, height and width: groups of 2x2x2 through a linear map. Frames 2j-1 and 2j become frame j; the first
 * frame of a video is paired with zeros, so that it is a frame of its own. [B, 1+2k, H, W, inputs] -> [B, 1+k, H/2, W/2, outputs]
 */
export function downsample(p: Parameters<LinearSpec>, x: Tensor, borders: Borders): Tensor {
  const front = borders.atStart ? 1 : 0;
  const whole = pad(x, [
    [0, 0],
    [front, 0],
    [0, 0],
    [0, 0],
    [0, 0],
  ]);
  return linear(p, mergePositions(whole, [2, 2, 2]));
}

/**
 * Doubles time, height and width, the reverse of {@link downsample}: the first frame of a video gives one frame, its
 * other one is dropped. [B, 1+k, H, W, inputs] -> [B, 1+2k, 2H, 2W, outputs]
 */
export function upsample(p: Parameters<LinearSpec>, x: Tensor, borders: Borders): Tensor {
  const whole = splitPositions(linear(p, x), [2, 2, 2]);
  return borders.atStart ? whole.slice(1, 1) : whole;
}
