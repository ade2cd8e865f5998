import { layerNorm, silu } from '../tensor/functions.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  type SelfAttentionSpec,
  type SequenceLayout,
  selfAttention,
  selfAttentionSpec,
} from './attention.ts';
import { type LinearSpec, linear, linearSpec, type MlpSpec, mlp, mlpSpec } from './linear.ts';
import { channelsOf, type Parameters } from './parameters.ts';

/** Parameters of a transformer block. */
export interface TransformerBlockSpec {
  readonly modulation: LinearSpec;
  readonly attention: SelfAttentionSpec;
  readonly mlp: MlpSpec;
}

/** Sizes of a transformer block. */
export interface TransformerBlockSizes {
  /** Channels of a token; a multiple of the head size. */
  readonly width: number;
  readonly headSize: number;
  /** Hidden units of the feed-forward layer; default 4 width. */
  readonly hidden?: number;
  /** Channels of the conditioning vector; default width. */
  readonly condition?: number;
}

/** A block whose gates start at zero, so that it begins as the identity (adaLN-Zero, Peebles & Xie 2022). */
export function transformerBlockSpec({
  width,
  headSize,
  hidden = 4 * width,
  condition = width,
}: TransformerBlockSizes): TransformerBlockSpec {
  return {
    modulation: linearSpec(condition, 6 * width, { kind: 'zeros' }),
    attention: selfAttentionSpec(width, headSize),
    mlp: mlpSpec(width, hidden),
  };
}

/** What conditioning does to one sub-layer: its normalised input becomes x (1 + scale) + shift, its output gate y. */
export interface Modulation {
  readonly shift: Tensor;
  readonly scale: Tensor;
  readonly gate: Tensor;
}

/** Modulations of the two sub-layers from the conditioning c [B, S or 1, condition]. */
export function modulations(
  p: Parameters<LinearSpec>,
  c: Tensor,
): { attention: Modulation; mlp: Modulation } {
  const all = linear(p, silu(c)); // [B, S or 1, 6 width]
  const width = channelsOf(all) / 6;
  const part = (index: number) => all.slice(-1, index * width, (index + 1) * width);
  return {
    attention: { shift: part(0), scale: part(1), gate: part(2) },
    mlp: { shift: part(3), scale: part(4), gate: part(5) },
  };
}

/** x (1 + scale) + shift. */
export function modulate(x: Tensor, { shift, scale }: Modulation): Tensor {
  return x.mul(scale.add(1)).add(shift);
}

/**
 * A transformer block modulated by conditioning (Peebles & Xie 2022, figure 3): x [B, S, width],
 * c [B, S or 1, condition] (per token, or one for all) -> [B, S, width].
 */
export function transformerBlock(
  p: Parameters<TransformerBlockSpec>,
  x: Tensor,
  c: Tensor,
  layout: SequenceLayout,
): Tensor {
  const on = modulations(p.modulation, c);
  const attended = x.add(
    selfAttention(p.attention, modulate(layerNorm(x), on.attention), layout).mul(on.attention.gate),
  );
  return attended.add(mlp(p.mlp, modulate(layerNorm(attended), on.mlp)).mul(on.mlp.gate)); // [B, S, width]
}
