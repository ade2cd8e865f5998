import { UserError } from '../errors.ts';
import { joinFrames, type Size, sliceFrames, type Video } from '../video/frames.ts';
import type { MediaReader } from '../video/read.ts';
import { trainedOn } from './request.ts';

/** A video that an edit goes on from. It is gone through piece by piece, more than once, and never held whole. */
export interface GivenVideo extends Size {
  /** What it is called in messages. */
  readonly name: string;
  /** Frames per second. */
  readonly rate: number;
  /** Its frames from the first on, each time anew. */
  frames(): AsyncIterable<Video>;
}

/** A video in memory as a {@link GivenVideo}. */
export function givenVideo(video: Video, name = 'video'): GivenVideo {
  const { width, height, rate } = video;
  return {
    name,
    width,
    height,
    rate,
    frames: async function* () {
      yield video;
    },
  };
}

/** In which form a file is to be read. */
export interface GivenForm {
  /** Default: the file's own size where the model can make it, else one of about the same aspect near that of training. */
  readonly size?: Size | undefined;
  /** Frames per second; default that of training. */
  readonly rate?: number | undefined;
}

/** A {@link GivenVideo} of a file. */
export interface GivenFile extends GivenVideo {
  /** What is done to the file's frames, one line each, for the user. */
  readonly notes: readonly string[];
}

/**
 * A file as a {@link GivenVideo}: frames are repeated or left out, never blended, to have the rate, and cropped evenly to
 * have the aspect.
 * @param stride pixels that width and height must be multiples of.
 * @throws UserError naming the file when it cannot be read.
 */
export async function givenFile(
  reader: MediaReader,
  path: string,
  { size, rate = trainedOn.rate }: GivenForm,
  stride: Size,
): Promise<GivenFile> {
  const info = await reader.probe(path);
  const form = { size: size ?? fittingSize(info, stride), rate };
  const notes: string[] = [];
  if (form.size.width !== info.width || form.size.height !== info.height) {
    notes.push(
      `${path}: ${info.width}x${info.height} pixels are read as ${form.size.width}x${form.size.height}`,
    );
  }
  if (info.rate !== undefined && !info.still && Math.abs(info.rate - rate) > 0.01) {
    notes.push(`${path}: ${round(info.rate)} frames a second are read as ${round(rate)}`);
  }
  return {
    name: path,
    ...form.size,
    rate,
    notes,
    frames: async function* () {
      await using stream = await reader.stream(path, { ...form, fit: 'cover' });
      yield* stream;
    },
  };
}

/** Both ends of a video, and how long it is. */
export interface VideoEnds {
  /** Number of its frames. */
  readonly count: number;
  /** Its first frames, at most as many as asked for, 1 or more. */
  readonly first: Video;
  /** Its last frames, at most as many as asked for, 1 or more. */
  readonly last: Video;
}

/**
 * Goes through a video once, keeping only its ends.
 * @throws UserError when it has no frames.
 */
export async function endsOf(
  given: GivenVideo,
  wanted: { readonly first: number; readonly last: number },
  signal?: AbortSignal,
): Promise<VideoEnds> {
  const first: Video[] = [];
  let last: Video | undefined;
  let count = 0;
  for await (const piece of given.frames()) {
    signal?.throwIfAborted();
    if (piece.frames === 0) continue;
    if (count < wanted.first) first.push(copyOf(sliceFrames(piece, 0, wanted.first - count)));
    const tail = copyOf(sliceFrames(piece, Math.max(0, piece.frames - wanted.last)));
    const joined: Video = last === undefined ? tail : joinFrames([last, tail]);
    last = sliceFrames(joined, Math.max(0, joined.frames - wanted.last));
    count += piece.frames;
  }
  if (last === undefined) throw new UserError(`${given.name}: has no frames; give a video`);
  return { count, first: joinFrames(first), last };
}

/**
 * The first frames of a video, at most so many, or all.
 * @throws the signal's reason when it is aborted.
 */
export async function readFrames(
  given: GivenVideo,
  wanted = Number.POSITIVE_INFINITY,
  signal?: AbortSignal,
): Promise<Video> {
  const pieces: Video[] = [];
  let count = 0;
  for await (const piece of given.frames()) {
    signal?.throwIfAborted();
    pieces.push(sliceFrames(piece, 0, wanted - count));
    count += piece.frames;
    if (count >= wanted) break;
  }
  return joinFrames(pieces);
}

/** A few frames without the memory of those around them. */
function copyOf(video: Video): Video {
  return { ...video, data: video.data.slice() };
}

/** Most pixels of a frame that is kept at its own size: four times those of training. */
const mostOwnPixels = 4 * trainedOn.size.width * trainedOn.size.height;
/** Pixels of frames that are not: between those of training's smallest and largest. */
const fittingPixels = 1.5 * trainedOn.size.width * trainedOn.size.height;

function fittingSize({ width, height }: Size, stride: Size): Size {
  const isWhole = width % stride.width === 0 && height % stride.height === 0;
  if (isWhole && width * height <= mostOwnPixels) return { width, height };
  const scale = Math.min(1, Math.sqrt(fittingPixels / (width * height)));
  const rounded = (side: number, step: number) => Math.max(step, Math.round((side * scale) / step) * step);
  return { width: rounded(width, stride.width), height: rounded(height, stride.height) };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
