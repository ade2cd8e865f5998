import { framesOf } from '../models/latent-spec.ts';
import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { at } from '../tensor/shape.ts';
import { frameAt, joinFrames, sliceFrames, type Video } from '../video/frames.ts';
import { decodeFrames } from './decode-frames.ts';
import { type EditLayout, type LatentRange, latentsAtSeams } from './edit-layout.ts';
import type { LatentCodec } from './latent-codec.ts';
import type { RunHooks } from './progress.ts';
import { blendSeam, type Seam } from './seam.ts';

/** A passage of new frames beside given ones. */
export interface GivenBeside {
  readonly layout: EditLayout;
  /** Given frames next to the new ones: the last of the video before, the first of the video after. */
  readonly context: { readonly before?: Video; readonly after?: Video };
  readonly extent: { readonly rate: number };
}

/** The given frames on both sides of the new ones, to which those are blended. */
export function seamOf({ layout, context: { before, after } }: GivenBeside): Seam {
  return {
    before: before && frameAt(before, before.frames - 1),
    after: after && frameAt(after, 0),
    frames: layout.to - layout.from,
  };
}

/** What is encoded anew at a seam. */
interface Window {
  /** The latent frames that are wanted of it. */
  readonly latents: LatentRange;
  /** Pixel frames of the passage: those of these latent frames, behind as many as the encoder looks back to. */
  readonly from: number;
  readonly to: number;
}

function windowsOf({ spec: { stride }, encoderMemory }: LatentCodec, layout: EditLayout): Window[] {
  const [time] = stride;
  // The first frame stands alone in its latent frame, as the last of its group would.
  const lead = 1 + Math.ceil(encoderMemory / time);
  return latentsAtSeams(layout, time).map((latents) => ({
    latents,
    from: Math.max(0, latents.from - lead) * time,
    to: 1 + (latents.to - 1) * time,
  }));
}

/** How many frames {@link putBack} decodes and encodes, about. */
export function framesToPutBack(
  codec: LatentCodec,
  layout: EditLayout,
): { readonly decoded: number; readonly encoded: number } {
  const windows = windowsOf(codec, layout);
  return {
    decoded: Math.max(...windows.map(({ to }) => to)),
    encoded: windows.reduce((sum, { from, to }) => sum + to - from, 0),
  };
}

/**
 * Latents of a passage whose frames at the seams are what will be shown: decoded, given frames as they are given, new ones
 * blended to them, and encoded again. The other latents stay.
 *
 * A latent frame that given frames share with new ones is not known, and by itself the model puts objects some pixels from
 * where they are given. Without the blending what the autoencoder loses would be taken for motion.
 *
 * Of the frames those that are encoded are held, however many are new.
 */
export async function putBack(
  codec: LatentCodec,
  latents: HostTensor<'f32'>,
  beside: GivenBeside,
  { signal }: Pick<RunHooks, 'signal'>,
): Promise<HostTensor<'f32'>> {
  const windows = windowsOf(codec, beside.layout);
  const data = latents.data.slice();
  const inFrame = data.length / at(latents.shape, 0);
  const videos = await cutOut(shownFrames(codec, latents, beside, signal), windows);
  for (const [i, video] of videos.entries()) {
    signal?.throwIfAborted();
    const { from, to } = at(windows, i).latents;
    const encoded = await codec.encode(video);
    data.set(encoded.data.slice(-(to - from) * inFrame), from * inFrame);
  }
  return fromFloat32('f32', latents.shape, data);
}

/** Frames of a passage as they will be shown, from its first one on; surplus ones as they are decoded. */
async function* shownFrames(
  codec: LatentCodec,
  latents: HostTensor<'f32'>,
  beside: GivenBeside,
  signal: AbortSignal | undefined,
): AsyncGenerator<Video> {
  const { layout, context, extent } = beside;
  const { before, after } = context;
  const frames = framesOf(codec.spec, layout.latentFrames);
  // With the decoded neighbours of the new frames where those are given, with surplus frames where they are not.
  const from = before === undefined ? 0 : layout.from - 1;
  const to = after === undefined ? frames : layout.to + 1;
  const decoded = decodeFrames(codec, latents, { from, to, rate: extent.rate }, { signal });
  if (before !== undefined) yield sliceFrames(before, before.frames - layout.from);
  yield* blendSeam(decoded, seamOf(beside));
  if (after !== undefined) yield sliceFrames(after, 0, frames - layout.to);
}

/** The frames of each window, of a video that is gone through no further than they reach. */
async function cutOut(video: AsyncIterable<Video>, windows: readonly Window[]): Promise<Video[]> {
  const pieces: Video[][] = windows.map(() => []);
  const end = Math.max(...windows.map(({ to }) => to));
  let done = 0;
  for await (const piece of video) {
    for (const [i, { from, to }] of windows.entries()) {
      const cut = sliceFrames(piece, Math.max(0, from - done), Math.max(0, to - done));
      if (cut.frames > 0) pieces[i]?.push(cut);
    }
    done += piece.frames;
    if (done >= end) break;
  }
  return pieces.map(joinFrames);
}
