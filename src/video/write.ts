import { availableParallelism } from 'node:os';
import { writeAtomically } from '../atomic-file.ts';
import { UserError } from '../errors.ts';
import type { CreateAsk } from './child/protocol.ts';
import { isFfmpegFormat, requireFfmpeg } from './ffmpeg-package.ts';
import { formatNames, formatOf, type WriteFormat } from './formats.ts';
import { folderIndexName } from './frame-folder.ts';
import { type Size, sliceFrames, type Video } from './frames.ts';
import type { MediaProcess } from './media-process.ts';
import { ProcessPool } from './process-pool.ts';

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

// Writing our own frames is not hostile, but a full pipe or a hung disk must still end.
const limits = { seconds: 300, memory: 8 * 2 ** 30 };

/** Bytes of frames sent to the encoder at a time. */
const pieceBytes = 16 * 2 ** 20;

/** One video, or consecutive pieces of one. */
export type VideoSource = Video | Iterable<Video> | AsyncIterable<Video>;

/**
 * Writes media files in child processes that stay open from one file to the next: for many files, where
 * {@link writeVideo} would start a process (0.3 s) for each. Dispose of it at the end.
 */
export class MediaWriter implements AsyncDisposable {
  readonly #pool: ProcessPool;

  /** @param options.processes files written at once, default 1; further calls wait. Processes start when first needed. */
  constructor(options: { readonly processes?: number } = {}) {
    this.#pool = new ProcessPool(Math.max(1, Math.floor(options.processes ?? 1)), limits);
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
  async write(source: VideoSource, path: string, options: WriteOptions = {}): Promise<WriteResult> {
    const settings = check(path, options);
    let frames = 0;
    const write = async (temporary: string) => {
      const process = await this.#pool.acquire();
      try {
        frames = await encode(source, process, { ...settings, path: temporary, name: path });
      } finally {
        await letGo(process, path);
        this.#pool.release(process);
      }
    };
    const folder = settings.format === 'frames' ? { folderMark: folderIndexName } : {};
    const bytes = await writeAtomically(path, write, folder);
    return { path, format: settings.format, frames, bytes };
  }

  /** Stops the child processes; files under way fail and leave nothing behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }
}

/** {@link MediaWriter.write} with a process of its own. */
export async function writeVideo(
  source: VideoSource,
  path: string,
  options: WriteOptions = {},
): Promise<WriteResult> {
  await using writer = new MediaWriter();
  return await writer.write(source, path, options);
}

/** Has the child close its file, complete or not, so that the file can be renamed or removed on every system. */
async function letGo(process: MediaProcess, path: string): Promise<void> {
  try {
    if (process.alive) await process.call(path, 'close', {});
  } catch {
    // It died while closing: it holds nothing any more, and the file had failed or was complete before.
  }
}

type Settings = Omit<CreateAsk, 'path' | 'name' | 'size' | 'rate'>;

function check(path: string, options: WriteOptions): Settings {
  const { format = formatOf(path), quality = 80, oddSize = 'error', loop = 0 } = options;
  if (!format) throw new UserError(`${path}: no format has this ending; use one of ${formatNames}`);
  if (isFfmpegFormat(format)) requireFfmpeg(path);
  if (!(quality >= 0 && quality <= 100)) throw new UserError(`${path}: quality ${quality}; use 0 to 100`);
  if (!(Number.isInteger(loop) && loop >= 0 && loop <= 65535))
    throw new UserError(`${path}: loop ${loop}; use 0 to 65535`);
  return { format, quality, oddSize, loop, threads: Math.min(16, availableParallelism()) };
}

async function encode(
  source: VideoSource,
  process: MediaProcess,
  ask: Settings & { path: string; name: string },
): Promise<number> {
  let size: Size | undefined;
  for await (const piece of 'data' in source ? [source] : source) {
    if (piece.frames === 0) continue;
    if (!size) {
      size = { width: piece.width, height: piece.height };
      await process.call(ask.name, 'create', { ...ask, size, rate: piece.rate });
    }
    if (piece.width !== size.width || piece.height !== size.height) {
      throw new UserError(
        `${ask.name}: frames of ${piece.width}x${piece.height} after ${size.width}x${size.height}; resize them to one size`,
      );
    }
    for (const part of parts(piece)) {
      await process.call(ask.name, 'add', { timestamps: [...part.timestamps] }, part.data);
    }
  }
  if (!size) throw new UserError(`${ask.name}: no frames to write; give at least one`);
  const { answer } = await process.call(ask.name, 'finish', {});
  return answer.frames;
}

function* parts(video: Video): Generator<Video> {
  const frames = Math.max(1, Math.floor(pieceBytes / (video.width * video.height * 3)));
  for (let from = 0; from < video.frames; from += frames) yield sliceFrames(video, from, from + frames);
}
