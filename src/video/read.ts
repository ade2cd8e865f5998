import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { UserError } from '../errors.ts';
import type { NextAnswer, OpenAnswer, OpenAsk, Slot } from './child/protocol.ts';
import { joinFrames, type Size, type Video } from './frames.ts';
import type { MediaInfo } from './media-info.ts';
import type { MediaProcess } from './media-process.ts';
import { ProcessPool } from './process-pool.ts';
import type { ReadLimits, ReadOptions, ReadReport } from './read-types.ts';

/** A {@link Video} and how it was read. */
export interface ReadResult {
  readonly video: Video;
  readonly info: MediaInfo;
  readonly report: ReadReport;
}

/** Frames that arrive in pieces. Iterate once; leaving the loop early, or disposing, stops the decoding. */
export interface VideoStream extends AsyncIterable<Video>, AsyncDisposable {
  readonly info: MediaInfo;
  /** Size of every frame that will come. */
  readonly size: Size;
  /** What happened; complete once the iteration has ended. */
  readonly report: ReadReport;
}

/** Bytes of pixels in one piece of a stream: so few that they are still in the cache of the processor when they are read. */
const pieceBytes = 4 * 2 ** 20;

const defaultLimits: Required<ReadLimits> = {
  seconds: 30,
  memory: 2 * 2 ** 30,
  pixels: 64e6,
  bytes: 4 * 2 ** 30,
};

/**
 * Reads media files in supervised child processes. Several files are read at once, one per process; more requests wait
 * their turn. A file that crashes, hangs or swells its process costs that process only: it is killed, the request
 * fails with a {@link UserError} naming the file, and the next request gets a fresh process.
 *
 * ```ts
 * await using reader = new MediaReader({ processes: 2 });
 * const { video } = await reader.read('clip.mp4', { end: 4, rate: 24, size: { width: 256, height: 144 } });
 * ```
 *
 * Reads regular files (symbolic links to them are followed) and folders of numbered pictures; anything else (FIFO,
 * device, playlist, a file that refers to other files) is refused.
 */
export class MediaReader implements AsyncDisposable {
  readonly #pool: ProcessPool;
  readonly #limits: Required<ReadLimits>;
  readonly #threads: number;

  /** @param options.processes files read at once, default 1; processes start when first needed. */
  constructor(options: { readonly processes?: number; readonly limits?: ReadLimits } = {}) {
    const processes = Math.max(1, Math.floor(options.processes ?? 1));
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#pool = new ProcessPool(processes, this.#limits);
    // More decoding threads than 4 cost memory in each (whole frames) and gain little.
    this.#threads = Math.min(4, Math.max(1, Math.ceil(availableParallelism() / processes)));
  }

  /** What the file says of its video. @throws UserError one line naming the file. */
  async probe(path: string): Promise<MediaInfo> {
    await using stream = await this.stream(path);
    return stream.info;
  }

  /** Reads frames into memory. @throws UserError one line naming the file; also on a shortfall, unless told to report it. */
  async read(path: string, options: ReadOptions = {}): Promise<ReadResult> {
    await using stream = await this.stream(path, options);
    const pieces: Video[] = [];
    let bytes = 0;
    for await (const piece of stream) {
      bytes += piece.data.length;
      if (bytes > this.#limits.bytes) {
        throw new UserError(
          `${path}: its frames take more than ${Math.round(this.#limits.bytes / 2 ** 20)} MB; read a range or smaller frames`,
        );
      }
      pieces.push(piece);
    }
    const video = joinFrames(pieces);
    const rate = options.rate ?? measuredRate(video);
    return { video: { ...video, rate }, info: stream.info, report: stream.report };
  }

  /**
   * Reads frames piece by piece: at most about 4 MB of pixels (but at least one frame) in a piece and two pieces in
   * flight, whatever the length of the file.
   *
   * @throws UserError one line naming the file, at once or while iterating.
   */
  async stream(path: string, options: ReadOptions = {}): Promise<VideoStream> {
    const ask = openAsk(path, options, this.#limits, this.#threads);
    const process = await this.#pool.acquire();
    try {
      const { answer } = await process.call(path, 'open', ask);
      return new ProcessStream(path, process, answer, options, () => this.#pool.release(process));
    } catch (error) {
      if (process.alive) await process.call(path, 'close', {});
      this.#pool.release(process);
      throw error;
    }
  }

  /** Stops the child processes; requests under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }
}

function openAsk(path: string, options: ReadOptions, limits: Required<ReadLimits>, threads: number): OpenAsk {
  const { start = 0, end, maxFrames, rate, size, fit = 'stretch', background = [255, 255, 255] } = options;
  const refuse = (what: string, remedy: string): never => {
    throw new UserError(`${path}: cannot read ${what}; ${remedy}`);
  };
  if (!(start >= 0)) refuse(`from ${start} s`, 'start at 0 or later');
  if (end !== undefined && !(end > start))
    refuse(`from ${start} s to ${end} s`, 'the end must be after the start');
  if (rate !== undefined && !(rate > 0 && rate <= 1000))
    refuse(`at ${rate} frames a second`, 'use 0.001 to 1000');
  if (maxFrames !== undefined && !(maxFrames >= 1)) refuse(`${maxFrames} frames`, 'ask for at least 1');
  if (size && !(isSide(size.width) && isSide(size.height) && size.width * size.height <= limits.pixels)) {
    refuse(`at ${size.width}x${size.height}`, `use whole numbers, at most ${limits.pixels} pixels together`);
  }
  if (options.maxSide !== undefined && !isSide(options.maxSide))
    refuse(`at ${options.maxSide} pixels a side`, 'use a whole number');
  return {
    path: resolve(path),
    start,
    end: end === undefined || end === Number.POSITIVE_INFINITY ? null : end,
    maxFrames: maxFrames ?? null,
    rate: rate ?? null,
    size: size ?? null,
    maxSide: options.maxSide ?? null,
    fit,
    background,
    reportTimes: options.reportTimes === true,
    pixels: limits.pixels,
    threads,
    pieceBytes,
  };
}

function isSide(value: number): boolean {
  return Number.isInteger(value) && value >= 1;
}

/** The nominal rate, unless the timestamps say another by more than their rounding; then their average. */
function measuredRate({ frames, rate, timestamps }: Video): number {
  const span = (timestamps[frames - 1] ?? 0) - (timestamps[0] ?? 0);
  const nominal = (frames - 1) / rate;
  // Half a tick of a GIF (10 ms) at either end.
  return frames < 2 || Math.abs(span - nominal) <= 0.0101 ? rate : (frames - 1) / span;
}

/** A file open in a child process. The next piece is asked for ahead, so that decoding goes on while one is used. */
class ProcessStream implements VideoStream {
  readonly info: MediaInfo;
  readonly size: Size;
  readonly #path: string;
  readonly #process: MediaProcess;
  readonly #rate: number;
  readonly #options: ReadOptions;
  readonly #release: () => void;
  #report: ReadReport = { frames: 0, repeated: 0, dropped: 0, hidden: 0, shortfall: undefined };
  #ended: Promise<void> | undefined;

  constructor(
    path: string,
    process: MediaProcess,
    opened: OpenAnswer,
    options: ReadOptions,
    release: () => void,
  ) {
    this.info = opened.info;
    this.size = opened.size;
    this.#path = path;
    this.#process = process;
    this.#rate = opened.rate;
    this.#options = options;
    this.#release = release;
  }

  get report(): ReadReport {
    return this.#report;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Video> {
    try {
      let slot: Slot = 0;
      let ahead = this.#next(slot);
      for (;;) {
        const { answer, payload } = await ahead;
        const filled = slot;
        slot = slot === 0 ? 1 : 0;
        if (!answer.report) ahead = this.#next(slot);
        const frames = answer.timestamps.length;
        this.#report = answer.report ?? { ...this.#report, frames: this.#report.frames + frames };
        if (frames > 0) {
          const { slotBytes } = answer;
          const data = slotBytes === null ? payload : await this.#process.readSlot(filled, slotBytes);
          const timestamps = Float64Array.from(answer.timestamps);
          yield { data, frames, ...this.size, rate: this.#rate, timestamps };
        }
        if (answer.report) break;
      }
      const { shortfall } = this.#report;
      if (shortfall && this.#options.onShortfall !== 'report') {
        const expected = shortfall.expected === undefined ? '' : ` of ${shortfall.expected}`;
        throw new UserError(
          `${this.#path}: only ${shortfall.got}${expected} frames are sound: ${shortfall.reason}; ` +
            'leave it out, or have the shortfall reported',
        );
      }
    } finally {
      await this[Symbol.asyncDispose]();
    }
  }

  /** Ends the reading and gives the process back. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  #next(slot: Slot): Promise<{ answer: NextAnswer; payload: Uint8Array }> {
    const next = this.#process.call(this.#path, 'next', { slot });
    // Asked for ahead: when the loop is left early nobody awaits it, and its failure no longer matters.
    next.catch(() => {});
    return next;
  }

  async #end(): Promise<void> {
    try {
      if (this.#process.alive) await this.#process.call(this.#path, 'close', {});
    } catch {
      // It died while closing: the pool replaces it, and everything that was asked for has been given.
    } finally {
      this.#release();
    }
  }
}

/** {@link MediaReader.probe} with a process of its own; use a reader for many files (a process takes 0.3 s to start). */
export async function probe(path: string, limits: ReadLimits = {}): Promise<MediaInfo> {
  await using reader = new MediaReader({ limits });
  return await reader.probe(path);
}

/** {@link MediaReader.read} with a process of its own, giving only the frames. */
export async function readVideo(
  path: string,
  options: ReadOptions = {},
  limits: ReadLimits = {},
): Promise<Video> {
  await using reader = new MediaReader({ limits });
  return (await reader.read(path, options)).video;
}
