import type { WriteFormat } from './formats.ts';
import type { Video } from './frames.ts';

/** How to write. Everything has a default. */
export interface WriteOptions {
  /** Default: by the ending of the path, {@link WriteFormat}. */
  readonly format?: WriteFormat;
  /** Loss allowed, from 0 (smallest file) to 100 (best); default 80. `png`, `frames` and `gif` do not use it. */
  readonly quality?: number;
  /**
   * mp4 needs even sizes. `error` (default) refuses others; `crop` leaves out the last column or row; `pad` repeats it.
   */
  readonly oddSize?: 'error' | 'crop' | 'pad';
  /** Times that gif and webp play: 0 (default) for ever. */
  readonly loop?: number;
}

/** What was written. */
export interface WriteResult {
  readonly path: string;
  readonly format: WriteFormat;
  readonly frames: number;
  readonly bytes: number;
}

/**
 * Writes frames to a media file. Frames keep their timestamps (variable rate included), shifted to begin at 0.
 *
 * The file appears under its name only when complete and flushed to disk: it is written beside it under a temporary
 * name and renamed; an existing regular file (or, for `frames`, a folder with `frames.json`) is replaced.
 *
 * @param source one video, or consecutive pieces of one size; only one piece is held at a time.
 * @throws UserError one line naming the path: unknown ending, odd size, no frames, target not writable or full, or in
 * the way (a symbolic link, device, other folder).
 */
export function writeVideo(
  source: Video | Iterable<Video> | AsyncIterable<Video>,
  path: string,
  options: WriteOptions = {},
): Promise<WriteResult> {
  void source;
  void options;
  return Promise.reject(new Error(`write ${path}: under construction`));
}
