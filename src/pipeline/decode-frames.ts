import { framesOf } from '../models/latent-spec.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { at } from '../tensor/shape.ts';
import { sliceFrames, type Video } from '../video/frames.ts';
import type { LatentCodec } from './latent-codec.ts';
import type { RunHooks } from './progress.ts';

/** Which frames of decoded latents are wanted. */
export interface FrameRange {
  /** First frame given; default 0. */
  readonly from?: number;
  /** First frame no longer given; default the end. */
  readonly to?: number;
  /** Frames a second. */
  readonly rate: number;
}

/**
 * Frames `from` to `to` of latents [T, H, W, C], piece by piece; nothing is kept of pieces that were given. Those before
 * are decoded too, being what the wanted ones follow, and those after are not.
 */
export async function* decodeFrames(
  codec: LatentCodec,
  latents: HostTensor,
  { from = 0, to = framesOf(codec.spec, at(latents.shape, 0)), rate }: FrameRange,
  { signal, onProgress }: RunHooks = {},
): AsyncGenerator<Video> {
  const report = (done: number) => onProgress?.({ stage: 'decoding', done, total: to, unit: 'frames' });
  let done = 0;
  report(done);
  for await (const piece of codec.decode(latents, { rate, frames: to })) {
    signal?.throwIfAborted();
    const wanted = sliceFrames(piece, Math.min(piece.frames, Math.max(0, from - done)));
    done += piece.frames;
    report(done);
    if (wanted.frames > 0) yield wanted;
  }
}

/** Pieces of video one after the other as one video of constant rate that begins at 0. */
export async function* retimed(pieces: AsyncIterable<Video>, rate: number): AsyncGenerator<Video> {
  let done = 0;
  for await (const piece of pieces) {
    const first = done;
    done += piece.frames;
    yield { ...piece, rate, timestamps: piece.timestamps.map((_, i) => (first + i) / rate) };
  }
}
