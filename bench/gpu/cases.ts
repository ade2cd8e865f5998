/** Work that `compare.ts` measures: sizes that our side (`work.ts`) and PyTorch's (`peer.py`) both read. */

/** Transformer blocks on one sequence: forward, or a training step of squared error, its gradients and AdamW. */
export interface TransformerCase {
  readonly kind: 'transformer';
  readonly work: 'forward' | 'step';
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  /** Units of the feed-forward layers. */
  readonly hidden: number;
  readonly tokens: number;
  /** Text tokens, of `width` channels, that every block attends to; 0: blocks have no cross-attention. */
  readonly text: number;
  /** Values of a token where it enters and leaves the transformer. */
  readonly values: number;
}

/** A training step of our autoencoder: reconstruction, divergence, their gradients and AdamW. */
export interface AutoencoderCase {
  readonly kind: 'autoencoder';
  readonly work: 'step';
  readonly clips: number;
  readonly frames: number;
  /** Pixels of each side. */
  readonly side: number;
  readonly latentChannels: number;
  readonly channels: readonly [number, number, number];
  readonly encoderBlocks: readonly [number, number, number];
  readonly decoderBlocks: readonly [number, number, number];
}

/** One piece of work. */
export type BenchCase = TransformerCase | AutoencoderCase;

const step64: TransformerCase = {
  kind: 'transformer',
  work: 'step',
  layers: 28,
  width: 1152,
  heads: 18,
  hidden: 4608,
  tokens: 16_384,
  text: 512,
  values: 64,
};

const small: TransformerCase = {
  kind: 'transformer',
  work: 'forward',
  layers: 12,
  width: 384,
  heads: 6,
  hidden: 1536,
  tokens: 576,
  text: 0,
  values: 64,
};

/** The work by name: `wan` has the shape of Wan2.1-1.3B, `step64` and `step128` are named after their head sizes. */
export const cases = {
  wan: {
    kind: 'transformer',
    work: 'forward',
    layers: 30,
    width: 1536,
    heads: 12,
    hidden: 8960,
    tokens: 32_760,
    text: 512,
    values: 64,
  },
  step64,
  step128: { ...step64, heads: 9 },
  small,
  smallText: { ...small, text: 512 },
  autoencoder: {
    kind: 'autoencoder',
    work: 'step',
    clips: 2,
    frames: 17,
    side: 256,
    latentChannels: 16,
    channels: [96, 192, 384],
    encoderBlocks: [2, 3, 3],
    decoderBlocks: [3, 4, 4],
  },
} as const satisfies Readonly<Record<string, BenchCase>>;

/** Name of a case. */
export type CaseName = keyof typeof cases;

/** The same work at sizes for a dry run: two blocks, some tens of tokens. */
export function tinyCase(given: BenchCase): BenchCase {
  if (given.kind === 'autoencoder') {
    const blocks = [1, 1, 1] as const;
    const sizes = {
      latentChannels: 4,
      channels: [8, 8, 16],
      encoderBlocks: blocks,
      decoderBlocks: blocks,
    } as const;
    return { ...given, ...sizes, clips: 1, frames: 5, side: 16 };
  }
  const text = Math.min(given.text, 8);
  const sizes = { layers: 2, width: 32, heads: given.heads === 9 ? 1 : 2, hidden: 64, tokens: 24, values: 8 };
  return { ...given, ...sizes, text };
}

/**
 * Floating-point operations that the work asks for, a multiplication and an addition being two. A training step counts
 * three forward passes; what is computed again in the backward pass does not count.
 */
export function operations(given: BenchCase): number {
  const forward = given.kind === 'transformer' ? transformerOperations(given) : autoencoderOperations(given);
  return given.work === 'step' ? 3 * forward : forward;
}

function transformerOperations({ layers, width, hidden, tokens, text, values }: TransformerCase): number {
  const projections = 8 * tokens * width ** 2;
  const attention = 4 * tokens ** 2 * width;
  const cross = text === 0 ? 0 : 4 * tokens * width ** 2 + 4 * text * width ** 2 + 4 * tokens * text * width;
  const feedForward = 4 * tokens * width * hidden;
  return layers * (projections + attention + cross + feedForward) + 4 * tokens * width * values;
}

function autoencoderOperations(given: AutoencoderCase): number {
  const { clips, frames, side, channels, encoderBlocks, decoderBlocks, latentChannels } = given;
  const quarter = (frames - 1) / 4;
  const positions = [
    clips * frames * (side / 2) ** 2,
    clips * (1 + 2 * quarter) * (side / 4) ** 2,
    clips * (1 + quarter) * (side / 8) ** 2,
  ] as const;
  const [fine, middle, coarse] = channels;
  // A block: nine taps in space, three in time.
  const blocks = [0, 1, 2].reduce((sum, level) => {
    const count = (encoderBlocks[level] ?? 0) + (decoderBlocks[level] ?? 0);
    return sum + count * 24 * (positions[level] ?? 0) * (channels[level] ?? 0) ** 2;
  }, 0);
  const ends = positions[0] * fine * 12 * (2 + 18) + positions[2] * coarse * latentChannels * (4 + 2);
  const between = 2 * 2 * 8 * (positions[1] * fine * middle + positions[2] * middle * coarse);
  return blocks + ends + between;
}
