import { UserError } from '../errors.ts';

/**
 * Frames in memory: the one form in which pixels travel through Zoetrope. An image is a video of one frame.
 *
 * Treat it as immutable; {@link frameAt} and {@link sliceFrames} share its memory.
 */
export interface Video {
  /** 8-bit sRGB, shape [frames, height, width, 3], row-major, without padding. */
  readonly data: Uint8Array;
  /** Number of frames; at least 1 except in the result of slicing. */
  readonly frames: number;
  /** Rows of a frame, in pixels. Pixels are square. */
  readonly height: number;
  /** Columns of a frame, in pixels. */
  readonly width: number;
  /** Frames per second, greater than 0: exact for a constant rate, the average where `timestamps` vary; 1 for a still. */
  readonly rate: number;
  /** Shape [frames]: when each frame appears, in seconds, strictly ascending, never negative. */
  readonly timestamps: Float64Array;
}

/** Width and height of a frame, in pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/**
 * A video of constant rate over existing pixels (not copied): frame `i` appears at `start + i / rate` seconds.
 *
 * @param data shape [frames, height, width, 3]; its length decides the number of frames.
 * @throws UserError when the length is not a whole number of frames, or a size or the rate is not positive.
 */
export function videoFrom(data: Uint8Array, options: Size & { rate: number; start?: number }): Video {
  const { width, height, rate, start = 0 } = options;
  const bytes = width * height * 3;
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
    throw new UserError(
      `video of ${width}x${height} pixels: width and height must be positive whole numbers`,
    );
  }
  if (!(rate > 0 && Number.isFinite(rate)))
    throw new UserError(`video rate ${rate}: must be above 0 frames a second`);
  if (data.length % bytes !== 0) {
    throw new UserError(
      `video data of ${data.length} bytes: not a whole number of ${width}x${height} RGB frames`,
    );
  }
  const frames = data.length / bytes;
  return {
    data,
    frames,
    height,
    width,
    rate,
    timestamps: Float64Array.from({ length: frames }, (_, i) => start + i / rate),
  };
}

/**
 * The pixels of one frame, shape [height, width, 3], as a view.
 *
 * @throws RangeError when there is no frame `index`.
 */
export function frameAt(video: Video, index: number): Uint8Array {
  if (!(index >= 0 && index < video.frames))
    throw new RangeError(`frame ${index} of a video of ${video.frames}`);
  const bytes = video.width * video.height * 3;
  return video.data.subarray(index * bytes, (index + 1) * bytes);
}

/** Frames `from` up to but not including `to` as a view that keeps its timestamps; bounds are clamped as in `Array.slice`. */
export function sliceFrames(video: Video, from: number, to: number = video.frames): Video {
  const timestamps = video.timestamps.subarray(from, to);
  const bytes = video.width * video.height * 3;
  const first = Math.min(video.frames, from < 0 ? Math.max(0, video.frames + from) : from);
  const data = video.data.subarray(first * bytes, (first + timestamps.length) * bytes);
  return { ...video, data, frames: timestamps.length, timestamps };
}

/**
 * One video out of consecutive pieces, as a stream gives them; copies the pixels once.
 *
 * @throws UserError when there are no frames, or the pieces differ in size.
 */
export function joinFrames(pieces: readonly Video[]): Video {
  const [first] = pieces;
  if (!first) throw new UserError('no frames to join: give at least one piece of video');
  const odd = pieces.find((p) => p.width !== first.width || p.height !== first.height);
  if (odd) {
    throw new UserError(
      `pieces of video of ${first.width}x${first.height} and ${odd.width}x${odd.height}: resize them to one size first`,
    );
  }
  if (pieces.length === 1) return first;
  const frames = pieces.reduce((sum, piece) => sum + piece.frames, 0);
  const data = new Uint8Array(frames * first.width * first.height * 3);
  const timestamps = new Float64Array(frames);
  let at = 0;
  for (const piece of pieces) {
    data.set(piece.data, at * first.width * first.height * 3);
    timestamps.set(piece.timestamps, at);
    at += piece.frames;
  }
  return { ...first, data, frames, timestamps };
}

/** How long the video plays, in seconds: to the last frame's timestamp and one frame of its rate more. */
export function durationOf(video: Video): number {
  const first = video.timestamps[0] ?? 0;
  return video.frames === 0 ? 0 : (video.timestamps[video.frames - 1] ?? first) - first + 1 / video.rate;
}
