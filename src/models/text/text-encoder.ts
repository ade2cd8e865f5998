import type { SequenceLayout } from '../../nn/attention.ts';
import { type LinearSpec, linear, linearSpec } from '../../nn/linear.ts';
import { type ParameterSpec, type Parameters, parameter } from '../../nn/parameters.ts';
import {
  type TransformerBlockSpec,
  transformerBlock,
  transformerBlockSpec,
} from '../../nn/transformer-block.ts';
import { gather, layerNorm } from '../../tensor/functions.ts';
import { expectShape } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { block } from '../../tensor/trace.ts';
import { bytesPerToken } from './caption-bytes.ts';

/** Sizes of a byte text encoder. */
export interface TextConfig {
  /** Channels of a byte; a multiple of the head size. */
  readonly width: number;
  /** Channels of an attention head, even. */
  readonly headSize: number;
  /** Transformer blocks. */
  readonly layers: number;
  /** Hidden units of the feed-forward layers. */
  readonly hidden: number;
}

/** Parameters of a byte text encoder. */
export interface TextEncoderSpec {
  /** One row for each value of a byte, [256, width]. */
  readonly bytes: ParameterSpec;
  readonly blocks: readonly TransformerBlockSpec[];
  /** From the bytes of a token to the token. */
  readonly out: LinearSpec;
}

/** Parameters of a text encoder whose tokens have `outputs` channels. */
export function textEncoderSpec(
  { width, headSize, layers, hidden }: TextConfig,
  outputs: number,
): TextEncoderSpec {
  return {
    bytes: parameter([256, width], { kind: 'normal', deviation: 1 }),
    blocks: Array.from({ length: layers }, () => transformerBlockSpec({ width, headSize, hidden })),
    out: linearSpec(bytesPerToken * width, outputs),
  };
}

const layer = block(
  'text.layer',
  (p: Parameters<TransformerBlockSpec>, x: Tensor, layout: SequenceLayout): Tensor =>
    transformerBlock(p, x, layout),
);

/**
 * Text tokens from UTF-8: bytes i32 [B, 4 N] -> [B, N, outputs].
 *
 * A bidirectional transformer over bytes (ByT5, Xue et al. 2022, has no vocabulary either); then the four neighbouring
 * bytes of a token are joined and projected, so that the long byte sequence is met by this small model alone. Each
 * caption is a segment of `layout` and sees only itself.
 */
export function encodeText(p: Parameters<TextEncoderSpec>, bytes: Tensor, layout: SequenceLayout): Tensor {
  const { B, N } = expectShape(bytes, 'B N', {}, 'text bytes');
  const embedded = gather(p.bytes, bytes); // [B, 4 tokens, text width]
  const encoded = p.blocks.reduce((x, q) => layer(q, x, layout), embedded); // [B, 4 tokens, text width]
  return linear(p.out, layerNorm(encoded).reshape([B, N / bytesPerToken, -1])); // [B, tokens, outputs]
}
