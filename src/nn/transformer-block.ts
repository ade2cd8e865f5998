import { layerNorm, silu } from '../tensor/functions.ts';
import { GraphError } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import {
  type CrossAttentionSpec,
  crossAttention,
  crossAttentionSpec,
  type SelfAttentionSpec,
  type SequenceLayout,
  selfAttention,
  selfAttentionSpec,
} from './attention.ts';
import { type LinearSpec, linear, linearSpec, type MlpSpec, mlp, mlpSpec } from './linear.ts';
import { channelsOf, type ParameterSpec, type Parameters, parameter } from './parameters.ts';

/** Parameters of a transformer block. */
export interface TransformerBlockSpec {
  /** Set in a block that makes its modulations from the conditioning itself. */
  readonly modulation?: LinearSpec;
  /** Set in a block whose conditioning is modulations that all blocks share: this block's own share, [6 width]. */
  readonly modulationTable?: ParameterSpec;
  readonly attention: SelfAttentionSpec;
  /** Set in a block that attends to a context, such as a text. */
  readonly crossAttention?: CrossAttentionSpec;
  readonly mlp: MlpSpec;
}

/** Sizes of a transformer block. */
export interface TransformerBlockSizes {
  /** Channels of a token; a multiple of the head size. */
  readonly width: number;
  readonly headSize: number;
  /** Hidden units of the feed-forward layer; default 4 width. */
  readonly hidden?: number;
  /**
   * Channels of the conditioning vector, or `shared`: the conditioning is modulations [B, S or 1, 6 width], made once
   * for all blocks. Default: no conditioning.
   */
  readonly condition?: number | 'shared';
  /** Channels of a context that the block attends to between its two other sub-layers. Default: no context. */
  readonly context?: number;
}

/**
 * A pre-norm transformer block. With conditioning its gates start at zero, so that it begins as the identity
 * (adaLN-Zero, Peebles & Xie 2022); with shared modulations it adds a table of its own to them, zeros at first
 * (adaLN-single, Chen et al. 2023, PixArt-alpha, section 2.3).
 */
export function transformerBlockSpec({
  width,
  headSize,
  hidden = 4 * width,
  condition,
  context,
}: TransformerBlockSizes): TransformerBlockSpec {
  return {
    ...(typeof condition === 'number' && {
      modulation: linearSpec(condition, 6 * width, { kind: 'zeros' }),
    }),
    ...(condition === 'shared' && { modulationTable: parameter([6 * width], { kind: 'zeros' }) }),
    attention: selfAttentionSpec(width, headSize),
    ...(context !== undefined && { crossAttention: crossAttentionSpec(width, headSize, context) }),
    mlp: mlpSpec(width, hidden),
  };
}

/** What conditioning does to one sub-layer: its normalised input becomes x (1 + scale) + shift, its output gate y. */
export interface Modulation {
  readonly shift: Tensor;
  readonly scale: Tensor;
  readonly gate: Tensor;
}

/** Those of both sub-layers of a block. */
export interface Modulations {
  readonly attention: Modulation;
  readonly mlp: Modulation;
}

/** Modulations that lie one behind the other, [.., 6 width], each by itself [.., width]. */
export function modulationParts(all: Tensor): Modulations {
  const width = channelsOf(all) / 6;
  const part = (index: number) => all.slice(-1, index * width, (index + 1) * width);
  return {
    attention: { shift: part(0), scale: part(1), gate: part(2) },
    mlp: { shift: part(3), scale: part(4), gate: part(5) },
  };
}

/**
 * Modulations of the two sub-layers from the conditioning c, whose channels are as the block's parameters say; where all
 * blocks share modulations they may be given in parts, whose gradients are then parts too.
 */
export function modulations(
  { modulation, modulationTable }: Pick<Parameters<TransformerBlockSpec>, 'modulation' | 'modulationTable'>,
  c: Tensor | Modulations,
): Modulations {
  const given =
    c instanceof Tensor ? modulationParts(modulation === undefined ? c : linear(modulation, silu(c))) : c;
  if (modulationTable === undefined) return given;
  const own = modulationParts(modulationTable);
  const sum = (a: Modulation, b: Modulation) => ({
    shift: a.shift.add(b.shift), // [B, S or 1, width]
    scale: a.scale.add(b.scale),
    gate: a.gate.add(b.gate),
  });
  return { attention: sum(given.attention, own.attention), mlp: sum(given.mlp, own.mlp) };
}

/** x (1 + scale) + shift. */
export function modulate(x: Tensor, { shift, scale }: Modulation): Tensor {
  return x.mul(scale.add(1)).add(shift);
}

/**
 * A pre-norm transformer block: x [B, S, width] -> [B, S, width]. With conditioning c [B, S or 1, condition or
 * 6 width] (per token, or one for all; shared modulations also in parts) it is modulated by it (Peebles & Xie 2022, figure 3). With a context
 * [B, T, context], which conditioning leaves alone, it attends to it in between.
 * @throws GraphError when the parameters are made for c or a context and it is missing, or the other way round.
 */
export function transformerBlock(
  p: Parameters<TransformerBlockSpec>,
  x: Tensor,
  layout: SequenceLayout,
  c?: Tensor | Modulations,
  context?: Tensor,
): Tensor {
  const modulated = p.modulation !== undefined || p.modulationTable !== undefined;
  if (modulated !== (c !== undefined)) {
    throw new GraphError(
      'transformer block: conditioning and modulation parameters go together; give both or neither',
    );
  }
  const on = c && modulations(p, c);
  const attended = subLayer(x, on?.attention, (h) => selfAttention(p.attention, h, layout)); // [B, S, width]
  const informed = attendToContext(p, attended, context); // [B, S, width]
  return subLayer(informed, on?.mlp, (h) => mlp(p.mlp, h)); // [B, S, width]
}

function attendToContext(
  p: Parameters<TransformerBlockSpec>,
  x: Tensor,
  context: Tensor | undefined,
): Tensor {
  if (p.crossAttention === undefined && context === undefined) return x;
  if (p.crossAttention === undefined || context === undefined) {
    throw new GraphError(
      'transformer block: context and cross-attention parameters go together; give both or neither',
    );
  }
  return x.add(crossAttention(p.crossAttention, layerNorm(x), context));
}

/** x + gate f(modulate(norm(x))), or x + f(norm(x)) without conditioning. */
function subLayer(x: Tensor, modulation: Modulation | undefined, f: (h: Tensor) => Tensor): Tensor {
  const h = layerNorm(x);
  return x.add(modulation === undefined ? f(h) : f(modulate(h, modulation)).mul(modulation.gate));
}
