import { gelu, matmul } from '../tensor/functions.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { fanIn, type Initializer, type ParameterSpec, type Parameters, parameter } from './parameters.ts';

/** A linear map's parameters: weight [outputs, inputs] and bias [outputs]. */
export interface LinearSpec {
  readonly weight: ParameterSpec;
  readonly bias: ParameterSpec;
}

/** A linear map; default initial weights keep the variance, biases start at 0. */
export function linearSpec(
  inputs: number,
  outputs: number,
  initializer: Initializer = fanIn(inputs),
): LinearSpec {
  return { weight: parameter([outputs, inputs], initializer), bias: parameter([outputs], { kind: 'zeros' }) };
}

/** x W^T + b: [.., inputs] -> [.., outputs]. */
export function linear({ weight, bias }: Parameters<LinearSpec>, x: Tensor): Tensor {
  return matmul(x, weight, { transposeB: true }).add(bias);
}

/** The parameters of a feed-forward layer. */
export interface MlpSpec {
  readonly up: LinearSpec;
  readonly down: LinearSpec;
}

/** A feed-forward layer of `width` with `hidden` units; it starts by adding nothing to the residual when `zero`. */
export function mlpSpec(width: number, hidden: number, { zero = false } = {}): MlpSpec {
  return {
    up: linearSpec(width, hidden),
    down: linearSpec(hidden, width, zero ? { kind: 'zeros' } : fanIn(hidden)),
  };
}

/** Down(gelu(up(x))): [.., width] -> [.., width] (Vaswani et al. 2017, eq. 2, with gelu). */
export function mlp({ up, down }: Parameters<MlpSpec>, x: Tensor): Tensor {
  return linear(down, gelu(linear(up, x)));
}
