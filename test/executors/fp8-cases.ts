import { linear, linearSpec, mlp, mlpSpec } from '../../src/nn/linear.ts';
import { transformerBlock, transformerBlockSpec } from '../../src/nn/transformer-block.ts';
import { attention } from '../../src/tensor/functions.ts';
import type { Shape } from '../../src/tensor/shape.ts';
import { angles, type ConformanceCase, f32 } from './cases.ts';
import { layer } from './nn-cases.ts';

/**
 * Largest error of the precision `fp8`, relative to the largest value: steps of f8e4m3 are up to an eighth of a value, and
 * results of attention lie in it too.
 */
export const fp8Tolerance = 8e-2;

/** Sizes of {@link fp8Cases}. */
export interface Fp8Sizes {
  readonly tokens: number;
  readonly headSize: number;
}

/** Sizes from which on the precision `fp8` multiplies f8e4m3. */
export const largeSizes: Fp8Sizes = { tokens: 1024, headSize: 64 };

/** Conformance cases of the precision `fp8`, forward alone. Layers are four heads wide. */
export function fp8Cases({ tokens, headSize }: Fp8Sizes): readonly ConformanceCase[] {
  const width = 4 * headSize;
  const turns = angles([1, tokens, headSize / 2]);
  const only = { forwardOnly: true, looseness: 1 } as const;
  return [
    layer('linear', linearSpec(width, width + 16), [f32([1, tokens, width])], (p, x) => linear(p, x!), only),
    layer('mlp', mlpSpec(width, 2 * width + 48), [f32([2, tokens, width])], (p, x) => mlp(p, x!), only),
    attentionCase([1, tokens, 2, headSize], tokens),
    attentionCase([1, tokens + 5, 1, 2 * headSize], tokens + 136),
    layer(
      'transformer block',
      transformerBlockSpec({ width, headSize, condition: 'shared', context: 64 }),
      [f32([1, tokens, width]), turns, turns, f32([1, 1, 6 * width]), f32([1, 24, 64])],
      (p, x, cos, sin, c, context) => transformerBlock(p, x!, { cos: cos!, sin: sin! }, c!, context!),
      { ...only, looseness: 2 },
    ),
  ];
}

/** Attention of random values; a mean of so many is small, so they are made larger. */
function attentionCase(q: Shape, keys: number): ConformanceCase {
  const kv = [q[0] ?? 0, keys, q[2] ?? 0, q[3] ?? 0];
  return {
    name: `attention of ${q} and ${keys} keys`,
    inputs: [f32(q), f32(kv), f32(kv)],
    build: (x, y, z) => [attention(x!, y!, z!.mul(40))],
    forwardOnly: true,
    looseness: 2,
  };
}
