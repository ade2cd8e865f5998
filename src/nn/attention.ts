import { attention, rmsNorm, rotary } from '../tensor/functions.ts';
import { expectShape, GraphError } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type LinearSpec, linear, linearSpec } from './linear.ts';
import { channelsOf, fanIn, type ParameterSpec, type Parameters, parameter } from './parameters.ts';

/** Parameters of self-attention: joint projection to queries, keys and values, and the way back. */
export interface SelfAttentionSpec {
  readonly qkv: LinearSpec;
  /** Scales of the normalised queries and keys, [head size]. */
  readonly queryScale: ParameterSpec;
  readonly keyScale: ParameterSpec;
  readonly out: LinearSpec;
}

/** Self-attention over `width` channels in heads of `headSize`; `zero` starts it adding nothing to the residual. */
export function selfAttentionSpec(width: number, headSize: number, { zero = false } = {}): SelfAttentionSpec {
  if (width % headSize !== 0)
    throw new GraphError(`self-attention: width ${width} is not a multiple of head size ${headSize}`);
  return {
    qkv: linearSpec(width, 3 * width),
    queryScale: parameter([headSize], { kind: 'ones' }),
    keyScale: parameter([headSize], { kind: 'ones' }),
    out: linearSpec(width, width, zero ? { kind: 'zeros' } : fanIn(width)),
  };
}

/** What tokens know of their places: cosines and sines [B or 1, S, head size / 2], and segment offsets i32 [B, N+1]. */
export interface SequenceLayout {
  readonly cos: Tensor;
  readonly sin: Tensor;
  /** Set for packed sequences: see `attention`. */
  readonly segments?: Tensor;
}

/**
 * Multi-head self-attention: x [B, S, width] -> [B, S, width].
 * Queries and keys are RMS-normalised per head (Dehghani et al. 2023), which keeps scores bounded, then rotated.
 */
export function selfAttention(
  p: Parameters<SelfAttentionSpec>,
  x: Tensor,
  { cos, sin, segments }: SequenceLayout,
): Tensor {
  const { B, S, W } = expectShape(x, 'B S W', {}, 'self-attention input');
  const headSize = channelsOf(p.queryScale);
  const heads = W / headSize;
  const [q, k, v] = linear(p.qkv, x)
    .split(-1, [W, W, W])
    .map((part) => part.reshape([B, S, heads, headSize])); // [B, S, H, D]
  if (q === undefined || k === undefined || v === undefined) throw new RangeError('split gives three parts');
  const rotated = (part: Tensor, scale: Tensor) => rotary(rmsNorm(part).mul(scale), cos, sin); // [B, S, H, D]
  const y = attention(
    rotated(q, p.queryScale),
    rotated(k, p.keyScale),
    v,
    segments === undefined ? {} : { segments },
  );
  return linear(p.out, y.reshape([B, S, W])); // [B, S, W]
}

/** Parameters of cross-attention: queries from the tokens, keys and values from a context, and the way back. */
export interface CrossAttentionSpec {
  readonly query: LinearSpec;
  readonly keyValue: LinearSpec;
  /** Scales of the normalised queries and keys, [head size]. */
  readonly queryScale: ParameterSpec;
  readonly keyScale: ParameterSpec;
  readonly out: LinearSpec;
}

/** Cross-attention of `width` channels to a context of `contextWidth` channels, in heads of `headSize`. */
export function crossAttentionSpec(
  width: number,
  headSize: number,
  contextWidth: number,
): CrossAttentionSpec {
  if (width % headSize !== 0)
    throw new GraphError(`cross-attention: width ${width} is not a multiple of head size ${headSize}`);
  return {
    query: linearSpec(width, width),
    keyValue: linearSpec(contextWidth, 2 * width),
    queryScale: parameter([headSize], { kind: 'ones' }),
    keyScale: parameter([headSize], { kind: 'ones' }),
    out: linearSpec(width, width),
  };
}

/**
 * Multi-head cross-attention (Vaswani et al. 2017, section 3.2.3): x [B, S, width] attends to all of a context
 * [B, T, context width] -> [B, S, width]. Queries and keys are RMS-normalised per head and have no positions.
 */
export function crossAttention(p: Parameters<CrossAttentionSpec>, x: Tensor, context: Tensor): Tensor {
  const { B, S, W } = expectShape(x, 'B S W', {}, 'cross-attention input');
  const { T } = expectShape(context, 'B T C', { B }, 'cross-attention context');
  const headSize = channelsOf(p.queryScale);
  const heads = W / headSize;
  const q = linear(p.query, x).reshape([B, S, heads, headSize]); // [B, S, H, D]
  const [k, v] = linear(p.keyValue, context)
    .split(-1, [W, W])
    .map((part) => part.reshape([B, T, heads, headSize])); // [B, T, H, D]
  if (k === undefined || v === undefined) throw new RangeError('split gives two parts');
  const y = attention(rmsNorm(q).mul(p.queryScale), rmsNorm(k).mul(p.keyScale), v); // [B, S, H, D]
  return linear(p.out, y.reshape([B, S, W])); // [B, S, W]
}
