import type { Size, Video } from './frames.ts';
import type { MediaInfo } from './media-info.ts';

/** Which frames to read and in what form. Everything left out means "as in the file". */
export interface ReadOptions {
  /** First moment wanted, in seconds of the file's own clock; default 0. Frames that appear at or after it are given. */
  readonly start?: number;
  /** First moment no longer wanted, in seconds; default the end of the file. */
  readonly end?: number;
  /** At most this many frames (after re-timing). Reading stops there, and that is no shortfall. */
  readonly maxFrames?: number;
  /**
   * Re-time to this many frames a second. Left out, every frame of the file is given once with its own timestamp, at
   * constant or variable rate. Given, output frame `k` stands at `start + k / rate` and shows the file's frame nearest
   * in time: frames are repeated or left out, never blended, and {@link ReadReport} counts both.
   */
  readonly rate?: number;
  /** Size of the frames given; default as displayed ({@link MediaInfo}). Downscaling is anti-aliased. */
  readonly size?: Size;
  /** What to do when `size` has another aspect ratio: `stretch` (default), or `cover`: fill it and crop the rest evenly. */
  readonly fit?: 'stretch' | 'cover';
  /** Colour [r, g, b] behind transparent pictures; default white. */
  readonly background?: readonly [number, number, number];
  /**
   * What to do when there is less video in the file than its container claims, or part of it cannot be decoded:
   * `error` (default) throws a {@link UserError} after the frames that could be had; `report` states it in
   * {@link ReadReport.shortfall}.
   */
  readonly onShortfall?: 'error' | 'report';
}

/** Bounds that hold for every file, because any file may be hostile. */
export interface ReadLimits {
  /** Seconds that one step (opening, or one chunk of frames) may take before the child process is killed; default 30. */
  readonly seconds?: number;
  /** Bytes of memory a child process may take before it is killed; default 2 GiB. */
  readonly memory?: number;
  /** Pixels that one coded frame may have; default 64 million (about 8K by 8K). */
  readonly pixels?: number;
  /** Bytes that the frames of one `read` may take together; default 4 GiB. `stream` is not bound by it. */
  readonly bytes?: number;
}

/** Video that a file should have given and did not. */
export interface Shortfall {
  /** Frames given. */
  readonly got: number;
  /** Frames to be expected from the container's claims; undefined when only a duration was claimed or the rate varies. */
  readonly expected: number | undefined;
  /** One line for people, without the file's name. */
  readonly reason: string;
}

/** What happened while reading. */
export interface ReadReport {
  /** Frames given. */
  readonly frames: number;
  /** Frames of the file that re-timing showed more than once (counting the repeats). */
  readonly repeated: number;
  /** Frames of the file that re-timing left out. */
  readonly dropped: number;
  /** Set when the file gave less than it claims; undefined when everything asked for is there. */
  readonly shortfall: Shortfall | undefined;
}

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
  /** @param options.processes files read at once, default 1; processes start when first needed. */
  constructor(options: { readonly processes?: number; readonly limits?: ReadLimits } = {}) {
    void options;
  }

  /** What the file says of its video. @throws UserError one line naming the file. */
  probe(path: string): Promise<MediaInfo> {
    return Promise.reject(new Error(`probe ${path}: under construction`));
  }

  /** Reads frames into memory. @throws UserError one line naming the file; also on a shortfall, unless told to report it. */
  read(path: string, options: ReadOptions = {}): Promise<ReadResult> {
    void options;
    return Promise.reject(new Error(`read ${path}: under construction`));
  }

  /**
   * Reads frames piece by piece: at most about 16 MB of pixels (but at least one frame) in a piece and two pieces in
   * flight, whatever the length of the file.
   *
   * @throws UserError one line naming the file, at once or while iterating.
   */
  stream(path: string, options: ReadOptions = {}): Promise<VideoStream> {
    void options;
    return Promise.reject(new Error(`stream ${path}: under construction`));
  }

  /** Stops the child processes; requests under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {}
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
