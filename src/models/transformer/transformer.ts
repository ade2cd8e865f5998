import type { SequenceLayout } from '../../nn/attention.ts';
import { type LinearSpec, linear, linearSpec } from '../../nn/linear.ts';
import { channelsOf, type Parameters } from '../../nn/parameters.ts';
import {
  type Modulations,
  modulationParts,
  type TransformerBlockSpec,
  transformerBlock,
  transformerBlockSpec,
} from '../../nn/transformer-block.ts';
import { concat, gather, layerNorm, matmul, silu } from '../../tensor/functions.ts';
import { expectShape } from '../../tensor/shape.ts';
import { constant, type Tensor, zeros } from '../../tensor/tensor.ts';
import { block } from '../../tensor/trace.ts';
import { mapTree } from '../../tensor/tree.ts';
import { encodeText, type TextEncoderSpec, textEncoderSpec } from '../text/text-encoder.ts';
import { patchChannels, type TransformerConfig } from './config.ts';
import type { Sequence } from './sequence.ts';
import { placeFeatures } from './token-places.ts';

/** Parameters of the transformer and its text encoder. */
export interface TransformerSpec {
  readonly text: TextEncoderSpec;
  /** From a patch to a token. */
  readonly patch: LinearSpec;
  /** From a patch's place in its frame to what is added to its token. */
  readonly place: LinearSpec;
  readonly time: {
    readonly in: LinearSpec;
    readonly out: LinearSpec;
    /** From the mean of a sample's text tokens to what is added to the timestep's embedding of each of its tokens. */
    readonly text: LinearSpec;
    /** To the modulations that all blocks share, [6 width]. */
    readonly modulation: LinearSpec;
  };
  readonly blocks: readonly TransformerBlockSpec[];
  readonly last: {
    /** To shift and scale of the last norm. */
    readonly modulation: LinearSpec;
    /** From a token to the velocity of its patch. */
    readonly out: LinearSpec;
  };
}

/** Sines and cosines that describe a timestep. */
const timestepFeatures = 256;

/** Parameters of a transformer: gates and the output start at zero, so that the first velocity is 0. */
export function transformerSpec(config: TransformerConfig): TransformerSpec {
  const { width, headSize, hidden, layers, text } = config;
  const channels = patchChannels(config);
  const zero = { kind: 'zeros' } as const;
  return {
    text: textEncoderSpec(text, width),
    patch: linearSpec(channels, width),
    place: linearSpec(placeFeatures, width),
    time: {
      in: linearSpec(timestepFeatures, width),
      out: linearSpec(width, width),
      text: linearSpec(width, width),
      modulation: linearSpec(width, 6 * width, zero),
    },
    blocks: Array.from({ length: layers }, () =>
      transformerBlockSpec({ width, headSize, hidden, condition: 'shared' }),
    ),
    last: { modulation: linearSpec(width, 2 * width, zero), out: linearSpec(width, channels, zero) },
  };
}

/** What the transformer works on: B rows of V video tokens of P values. */
export interface TransformerInputs {
  /** Patches, noised as their timesteps in the sequence say, [B, V, P]. */
  readonly patches: Tensor;
  /** From `layoutSequence`. */
  readonly sequence: Sequence<Tensor>;
}

function blockOf(
  p: Parameters<TransformerBlockSpec>,
  x: Tensor,
  layout: SequenceLayout,
  c: Modulations,
): Tensor {
  return transformerBlock(p, x, layout, c);
}
const keptLayer = block('transformer.layer', blockOf);
const recomputedLayer = block('transformer.layer', blockOf, { recompute: true });

/**
 * The velocity of each video token: patches [B, V, P] -> [B, V, P]; rows are packed sequences in which every sample is
 * its text tokens followed by its video tokens (DiT, Peebles & Xie 2022, on one stream as in SD3, Esser et al. 2024,
 * with a timestep for each token as in Diffusion Forcing, Chen et al. 2024). Video tokens that belong to no sample give
 * finite values without meaning.
 *
 * @param options.recompute keep only the input of each block for the backward pass (Chen et al. 2016). Default false.
 * @throws GraphError when shapes do not fit.
 */
export function transformer(
  p: Parameters<TransformerSpec>,
  config: TransformerConfig,
  { patches, sequence }: TransformerInputs,
  { recompute = false } = {},
): Tensor {
  const { B, P } = expectShape(patches, 'B V P', { P: patchChannels(config) }, 'patches');
  const { S } = expectShape(sequence.order, 'B S', { B }, 'sequence order');
  const { M } = expectShape(sequence.timesteps, 'B M', { B }, 'timesteps');
  const { bytes, byteSegments, byteCos, byteSin, segments, cos, sin, textMeans } = sequence;

  const text = encodeText(p.text, bytes, { cos: byteCos, sin: byteSin, segments: byteSegments }); // [B, N, width]
  const x = joined(text, videoTokens(p, patches, sequence.places), sequence.order); // [B, S, width]
  const layer = recompute ? recomputedLayer : keptLayer;
  const summary = linear(p.time.text, matmul(textMeans, text)); // [B, M, width]
  const time = conditionEmbedding(p.time, { t: sequence.timesteps.reshape([B, M, 1]), summary }); // [B, M, width]
  // A batch has few conditions: what comes of one is computed once, and then spread over its tokens.
  const all = constant([...new Array(M).keys()], [M], 'i32');
  const members = sequence.conditions.reshape([B, S, 1]).equal(all).cast('f32'); // [B, S, M]
  const spread = (value: Tensor) => matmul(members, value); // [B, M, C] -> [B, S, C]
  const velocity = tokenVelocities(p, x, { time, spread }, { cos, sin, segments }, layer); // [B, S, P]
  return gather(velocity.reshape([B * S, P]), sequence.videoOrder); // [B, V, P]
}

/** What a step of sampling works on: B samples of N text and V video tokens each, which fill their rows. */
export interface SamplingInputs {
  /** Text tokens from the model's text encoder, [B, N, width]: the same in every step. */
  readonly text: Tensor;
  /** Patches, noised as their timesteps say, [B, V, P]. */
  readonly patches: Tensor;
  /** 0 (clean, known) to 1 (noise) for each video token, [B, V]. */
  readonly timesteps: Tensor;
  /** As in a {@link Sequence} of one sample a row: rotary angles [B or 1, N + V, head size / 2], places [B or 1, V, 16]. */
  readonly layout: Pick<Sequence<Tensor>, 'cos' | 'sin' | 'places'>;
}

/**
 * {@link transformer} for rows that hold one sample each without padding, their text encoded before: no packing and no
 * masks, which is faster. patches [B, V, P] -> velocity [B, V, P].
 * @throws GraphError when shapes do not fit.
 */
export function sampledVelocity(
  p: Parameters<TransformerSpec>,
  config: TransformerConfig,
  { text, patches, timesteps, layout: { cos, sin, places } }: SamplingInputs,
): Tensor {
  const { B, V } = expectShape(patches, 'B V P', { P: patchChannels(config) }, 'patches');
  const { N } = expectShape(text, 'B N W', { B, W: config.width }, 'text tokens');
  expectShape(timesteps, 'B V', { B, V }, 'timesteps');
  const x = concat([text, videoTokens(p, patches, places)], 1); // [B, N + V, width]
  const noText = zeros({ shape: [B, N, 1], dtype: 'f32' });
  const known = concat([noText, timesteps.reshape([B, V, 1])], 1); // [B, N + V, 1]
  const summary = linear(p.time.text, text.mean([1], true)); // [B, 1, width]
  const time = conditionEmbedding(p.time, { t: known, summary }); // [B, N + V, width]
  const condition = { time, spread: (value: Tensor) => value };
  return tokenVelocities(p, x, condition, { cos, sin }, keptLayer).slice(1, N); // [B, V, P]
}

/** Tokens of video patches [B, V, P], before the blocks: [B, V, width]. */
function videoTokens(p: Parameters<TransformerSpec>, patches: Tensor, places: Tensor): Tensor {
  return linear(p.patch, patches).add(linear(p.place, places));
}

/** What tokens are modulated by. */
interface Condition {
  /** From {@link conditionEmbedding}, [B, M, width]. */
  readonly time: Tensor;
  /** Gives each token what there is of its condition: [B, M, C] -> [B, S, C]. */
  readonly spread: (value: Tensor) => Tensor;
}

/** Velocities [B, S, P] of tokens x [B, S, width]. */
function tokenVelocities(
  p: Parameters<TransformerSpec>,
  x: Tensor,
  { time, spread }: Condition,
  layout: SequenceLayout,
  layer: typeof keptLayer,
): Tensor {
  const shared = modulationParts(linear(p.time.modulation, time)); // of [B, M, width]
  const modulation = mapTree(shared, (part) => spread(part as Tensor)) as unknown as Modulations; // of [B, S, width]
  const y = p.blocks.reduce((h, q) => layer(q, h, layout, modulation), x); // [B, S, width]
  const last = linear(p.last.modulation, time)
    .split(-1, [channelsOf(x), channelsOf(x)])
    .map(spread); // [B, S, width]
  const [shift, scale] = last;
  if (shift === undefined || scale === undefined) throw new RangeError('split gives two parts');
  return linear(p.last.out, layerNorm(y).mul(scale.add(1)).add(shift)); // [B, S, P]
}

/** Text [B, N, C] and video [B, V, C] as packed samples [B, S, C]; `order` is i32 [B, S], into text rows then video rows. */
function joined(text: Tensor, video: Tensor, order: Tensor): Tensor {
  const channels = video.shape[2] ?? 1;
  const rows = [text, video].map((part) => part.reshape([-1, channels]));
  return gather(concat(rows, 0), order);
}

/**
 * silu(out(silu(in(sinusoids of 1000 t))) + summary), t [B, M, 1] and summary [B, M or 1, width] -> [B, M, width]: the
 * timestep (Peebles & Xie 2022, after Ho et al. 2020) and what the text is about as a whole, which is learnt long before attention finds single words (SD3, Esser et al.
 * 2024, section 4).
 */
function conditionEmbedding(
  p: Parameters<TransformerSpec['time']>,
  { t, summary }: Readonly<Record<'t' | 'summary', Tensor>>,
): Tensor {
  const half = timestepFeatures / 2;
  const frequencies = constant(Array.from({ length: half }, (_, i) => 1000 * 10_000 ** (-i / half)));
  const angles = t.mul(frequencies); // [B, S, half]
  const features = concat([angles.cos(), angles.sin()], -1);
  return silu(linear(p.out, silu(linear(p.in, features))).add(summary));
}
