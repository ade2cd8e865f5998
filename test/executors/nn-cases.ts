import {
  crossAttention,
  crossAttentionSpec,
  selfAttention,
  selfAttentionSpec,
} from '../../src/nn/attention.ts';
import {
  causalConvolution,
  convolutionSpec,
  residualBlock,
  residualBlockSpec,
} from '../../src/nn/convolution.ts';
import { linear, linearSpec, mlp, mlpSpec } from '../../src/nn/linear.ts';
import type { Parameters } from '../../src/nn/parameters.ts';
import { transformerBlock, transformerBlockSpec } from '../../src/nn/transformer-block.ts';
import { gelu, matmul } from '../../src/tensor/functions.ts';
import type { TensorType } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { block } from '../../src/tensor/trace.ts';
import { leaves, withLeaves } from '../../src/tensor/tree.ts';
import { adamW, globalNorm } from '../../src/training/optimizer.ts';
import { angles, type CaseInput, type ConformanceCase, f32 } from './cases.ts';

/** A case over a layer's parameters, all drawn at random, and further inputs. */
export function layer<Specs extends object>(
  name: string,
  specs: Specs,
  inputs: readonly CaseInput[],
  build: (p: Parameters<Specs>, ...rest: Tensor[]) => Tensor,
  extra: Partial<ConformanceCase> = {},
): ConformanceCase {
  const weights = leaves(specs).map((leaf) => f32((leaf as TensorType).shape));
  return {
    name,
    inputs: [...weights, ...inputs],
    build: (...tensors) => [
      build(
        withLeaves(specs, tensors.slice(0, weights.length)) as Parameters<Specs>,
        ...tensors.slice(weights.length),
      ),
    ],
    looseness: 20,
    ...extra,
  };
}

const turns = angles([1, 6, 2]);
const turns8 = angles([1, 6, 8]);
const packed: CaseInput = { shape: [1, 4], dtype: 'i32', source: [0, 2, 2, 5] };
const block4 = transformerBlockSpec({ width: 8, headSize: 4 });
const modulated = transformerBlockSpec({ width: 8, headSize: 4, hidden: 12, condition: 5 });
const shared = transformerBlockSpec({ width: 8, headSize: 4, hidden: 12, condition: 'shared' });
function layout(cos: Tensor, sin: Tensor, segments?: Tensor) {
  return { cos, sin, ...(segments && { segments }) };
}
const informed = transformerBlockSpec({ width: 8, headSize: 4, hidden: 12, condition: 'shared', context: 5 });
const stack = block('stacked', (p: Parameters<typeof block4>, x: Tensor, cos: Tensor, sin: Tensor) =>
  transformerBlock(p, x, { cos, sin }),
);

/** Conformance cases of every layer and block of `nn/`, and of the optimizer. */
export const nnCases: Readonly<Record<string, readonly ConformanceCase[]>> = {
  linear: [
    layer('vectors', linearSpec(5, 3), [f32([4, 5])], linear),
    layer('tokens', linearSpec(5, 3), [f32([2, 3, 5])], linear),
    layer('eights', linearSpec(16, 24), [f32([8, 16])], linear),
    layer('one column', linearSpec(4, 1), [f32([3, 4])], linear),
    layer('two', { a: linearSpec(5, 8), b: linearSpec(8, 3) }, [f32([2, 3, 5])], ({ a, b }, x) =>
      linear(b, linear(a, x!)),
    ),
    layer('for each row', { a: linearSpec(5, 6), b: linearSpec(6, 3) }, [f32([2, 1, 5])], ({ a, b }, x) =>
      linear(b, linear(a, x!).add(linear(a, x!.mul(0.5)).tanh())),
    ),
  ],
  mlp: [
    layer('tokens', mlpSpec(4, 9), [f32([2, 3, 4])], mlp),
    layer('eights', mlpSpec(8, 16), [f32([2, 3, 8])], mlp),
    layer('one token', mlpSpec(3, 8), [f32([1, 3])], mlp),
    layer('one column', mlpSpec(3, 1), [f32([4, 3])], mlp),
    {
      name: 'with what gelu is taken of',
      inputs: [f32([5, 4]), f32([4, 8]), f32([8]), f32([8, 3])],
      build: (x, w, b, v) => {
        const sum = b!.add(matmul(x!, w!));
        return [matmul(gelu(sum), v!), sum, sum.reshape([40]).slice(0, 3, 9)];
      },
      looseness: 20,
    },
  ],
  selfAttention: [
    layer('plain', selfAttentionSpec(8, 4), [f32([2, 6, 8]), turns, turns], (p, x, a, b) =>
      selfAttention(p, x!, layout(a!, b!)),
    ),
    layer('packed', selfAttentionSpec(8, 4), [f32([1, 6, 8]), turns, turns, packed], (p, x, a, b, s) =>
      selfAttention(p, x!, layout(a!, b!, s)),
    ),
    layer('heads of 16', selfAttentionSpec(32, 16), [f32([2, 6, 32]), turns8, turns8], (p, x, a, b) =>
      selfAttention(p, x!, layout(a!, b!)),
    ),
  ],
  crossAttention: [
    layer(
      'to a longer context',
      crossAttentionSpec(8, 4, 5),
      [f32([2, 3, 8]), f32([2, 7, 5])],
      (p, x, context) => crossAttention(p, x!, context!),
    ),
    layer(
      'to a shorter context',
      crossAttentionSpec(8, 4, 8),
      [f32([1, 6, 8]), f32([1, 2, 8])],
      (p, x, context) => crossAttention(p, x!, context!),
    ),
    layer('heads of 16', crossAttentionSpec(32, 16, 8), [f32([2, 6, 32]), f32([2, 10, 8])], (p, x, context) =>
      crossAttention(p, x!, context!),
    ),
  ],
  transformerBlock: [
    layer('plain', block4, [f32([2, 6, 8]), turns, turns], (p, x, a, b) =>
      transformerBlock(p, x!, layout(a!, b!)),
    ),
    layer('modulated per token', modulated, [f32([1, 6, 8]), turns, turns, f32([1, 6, 5])], (p, x, a, b, c) =>
      transformerBlock(p, x!, layout(a!, b!), c),
    ),
    layer(
      'modulated as a whole, packed',
      modulated,
      [f32([1, 6, 8]), turns, turns, f32([1, 1, 5]), packed],
      (p, x, a, b, c, s) => transformerBlock(p, x!, layout(a!, b!, s), c),
    ),
    layer(
      'modulated by what blocks share',
      shared,
      [f32([1, 6, 8]), turns, turns, f32([1, 6, 48])],
      (p, x, a, b, c) => transformerBlock(p, x!, layout(a!, b!), c),
    ),
    layer(
      'modulated, with a context',
      informed,
      [f32([2, 6, 8]), turns, turns, f32([2, 1, 48]), f32([2, 3, 5])],
      (p, x, a, b, c, context) => transformerBlock(p, x!, layout(a!, b!), c, context),
    ),
    layer('as a called block, twice', block4, [f32([1, 6, 8]), turns, turns], (p, x, a, b) =>
      stack(p, stack(p, x!, a!, b!), a!, b!),
    ),
  ],
  causalConvolution: [
    layer('video', convolutionSpec(2, 3, [3, 3, 3]), [f32([1, 4, 5, 4, 2])], (p, x) =>
      causalConvolution(p, x!),
    ),
    layer('image', convolutionSpec(2, 3, [3, 3, 3]), [f32([2, 1, 5, 4, 2])], (p, x) =>
      causalConvolution(p, x!),
    ),
    layer('strided', convolutionSpec(2, 3, [3, 3, 3]), [f32([1, 5, 6, 4, 2])], (p, x) =>
      causalConvolution(p, x!, [2, 2, 2]),
    ),
  ],
  residualBlock: [
    layer('same channels', residualBlockSpec(3, 3), [f32([1, 3, 4, 4, 3])], (p, x) => residualBlock(p, x!)),
    layer('more channels', residualBlockSpec(2, 4), [f32([1, 2, 3, 3, 2])], (p, x) => residualBlock(p, x!)),
  ],
  adamW: [
    {
      name: 'one step, limited and decayed',
      inputs: [
        f32([3, 4]),
        f32([4]),
        f32([3, 4]),
        f32([4]),
        f32([], [0.01]),
        f32([], [1e-8]),
        f32([], [0.99]),
      ],
      build: (w, b, dw, db, rate, epsilon, keep) => {
        const parameters = { w: w!, b: b! };
        const state = {
          mean: { w: w!.mul(0.1), b: b!.mul(0.1) },
          square: { w: w!.square(), b: b!.square() },
        };
        const {
          parameters: next,
          state: after,
          gradientNorm,
        } = adamW(
          parameters,
          { w: dw!, b: db! },
          state,
          { rate: rate!, epsilon: epsilon!, keep: keep! },
          { maxNorm: 0.5, weightDecay: 0.1 },
        );
        return [next.w, next.b, after.mean.w, after.square.b, gradientNorm, globalNorm(parameters)];
      },
      looseness: 8,
      forwardOnly: true,
    },
  ],
};
