import type { Size } from './frames.ts';

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
  /** Instead of `size`: scale down, at the file's own aspect ratio, until the longer side has at most this many pixels. */
  readonly maxSide?: number;
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
  /**
   * Whether to state in {@link ReadReport.times} when every frame of the file appears, those included that re-timing
   * leaves out; default false. With a low `rate` this surveys a file at the cost of decoding alone.
   */
  readonly reportTimes?: boolean;
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
  /** Pictures that the file holds and says are not to be shown: before an edit list's beginning, or reference only. */
  readonly hidden: number;
  /** Set when the file gave less than it claims; undefined when everything asked for is there. */
  readonly shortfall: Shortfall | undefined;
  /** Shape [frames decoded]: seconds since the first frame, ascending; only with {@link ReadOptions.reportTimes}. */
  readonly times?: readonly number[];
}
