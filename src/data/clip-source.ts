import { createHash } from 'node:crypto';
import { UserError } from '../errors.ts';
import { fold, type Key, keyFromSeed, permutation } from '../random/philox.ts';
import type { Video } from '../video/frames.ts';
import type { MediaReader } from '../video/read.ts';
import { resolveClipFile } from './dataset.ts';
import type { Captions } from './manifest.ts';
import type { Window } from './plan.ts';

/** A window of a clip with all that training needs to know of it. */
export type ClipWindow = {
  /** Relative to the dataset's folder. */
  readonly file: string;
  readonly captions: Captions;
  readonly tags: readonly string[];
  readonly window: Window;
};

/** One window, decoded. */
export type ClipSample = {
  /** Place in the endless stream: 0, 1, 2 and so on; places of bad files are passed over. */
  readonly position: number;
  /** How often every window came before this round. */
  readonly epoch: number;
  readonly clip: ClipWindow;
  /** `window.frames` frames of `window.size`. */
  readonly video: Video;
};

/** Where a stream stands: plain data, to be stored in a checkpoint. */
export type ClipSourceState = {
  readonly seed: number;
  /** Position of the next sample. */
  readonly position: number;
  /** Files given up so far. */
  readonly bad: readonly string[];
  /** Digest of the windows streamed over, so that a changed dataset is noticed. */
  readonly windows: string;
  /** How many windows there are. */
  readonly count: number;
};

/** What a {@link ClipSource} streams, and within which bounds. */
export type ClipSourceOptions = {
  /** The dataset's folder. */
  readonly root: string;
  /** The windows of all clips, as planned. */
  readonly windows: readonly ClipWindow[];
  /** Decides the order. */
  readonly seed: number;
  /** Decodes, in as many processes as it was made with; stays the caller's to close. */
  readonly reader: Pick<MediaReader, 'read'>;
  /** Most bytes of frames decoded ahead; at least one window always is. Default 256 MiB. */
  readonly prefetchBytes?: number;
  /** Continues a stream, in place of beginning one. */
  readonly state?: ClipSourceState;
  /** Told once of each file that is given up, when the stream reaches it. */
  readonly onBadFile?: (file: string, reason: string) => void;
};

/** Windows whose reading is under way or done but not yet asked for, whatever their size. */
const mostAhead = 64;
const defaultPrefetchBytes = 2 ** 28;

/**
 * An endless stream of decoded windows: every window once in each epoch, in an order that depends on the seed and the
 * epoch alone, never on timing or on how many processes decode.
 *
 * A file that cannot be read as planned is reported once and given up: its windows from that position on are passed
 * over. Frames are decoded ahead while the caller works, within a bound in bytes.
 */
export class ClipSource {
  readonly #options: ClipSourceOptions;
  readonly #key: Key;
  readonly #digest: string;
  readonly #bad: Set<string>;
  readonly #ahead = new Map<number, Pending>();
  readonly #orders = new Map<number, Uint32Array>();
  #aheadBytes = 0;
  #position: number;
  #nextRead: number;
  #busy = false;

  /**
   * @throws UserError when there are no windows, or `state` belongs to another seed or to other windows.
   */
  constructor(options: ClipSourceOptions) {
    const { windows, seed, state } = options;
    if (windows.length === 0) throw new UserError('no windows to train on: the plan skips every clip');
    this.#options = options;
    this.#key = fold(keyFromSeed(seed), 'clip order');
    this.#digest = digestWindows(windows);
    if (state !== undefined) checkState(state, seed, this.#digest, windows.length);
    this.#bad = new Set(state?.bad);
    this.#position = state?.position ?? 0;
    this.#nextRead = this.#position;
  }

  /** What to pass as `state` to continue after the last sample given. */
  get state(): ClipSourceState {
    return {
      seed: this.#options.seed,
      position: this.#position,
      bad: [...this.#bad],
      windows: this.#digest,
      count: this.#options.windows.length,
    };
  }

  /**
   * The next sample. One call at a time.
   *
   * @throws UserError when a whole epoch has no window that can be read.
   */
  async next(): Promise<ClipSample> {
    if (this.#busy) throw new Error('ClipSource.next: called while a call is under way');
    this.#busy = true;
    try {
      let reason = '';
      for (let passed = 0; passed < this.#options.windows.length; passed++) {
        const { position, read } = await this.#take();
        const clip = this.#windowAt(position);
        if ('fault' in read) throw read.fault;
        if ('reason' in read) {
          reason ||= read.reason;
          this.#giveUp(clip.file, read.reason);
        } else if (!this.#bad.has(clip.file)) {
          return { position, epoch: this.#epochOf(position), clip, video: read.video };
        }
      }
      throw new UserError(
        `none of the ${this.#options.windows.length} windows can be read${reason && ` (${reason})`}; check the dataset`,
      );
    } finally {
      this.#busy = false;
    }
  }

  async #take(): Promise<{ position: number; read: Read }> {
    const position = this.#position;
    this.#readAhead();
    const pending = this.#ahead.get(position);
    if (pending === undefined) throw new Error(`ClipSource: position ${position} was never read`);
    const read = await pending.read;
    this.#ahead.delete(position);
    this.#aheadBytes -= pending.bytes;
    this.#position++;
    this.#readAhead();
    return { position, read };
  }

  /** Starts reading until the bounds are met; always at least the window that is wanted next. */
  #readAhead(): void {
    const limit = this.#options.prefetchBytes ?? defaultPrefetchBytes;
    for (;;) {
      const { file, window } = this.#windowAt(this.#nextRead);
      const bytes = window.frames * window.size.width * window.size.height * 3;
      const fits = this.#ahead.size < mostAhead && this.#aheadBytes + bytes <= limit;
      if (this.#ahead.size > 0 && !fits) return;
      const isBad = this.#bad.has(file);
      const read = isBad ? Promise.resolve<Read>({ reason: '' }) : this.#read(file, window);
      this.#ahead.set(this.#nextRead++, { read, bytes });
      this.#aheadBytes += bytes;
    }
  }

  /** Never rejects: an error is reported when its position is reached, wherever reading ahead stands. */
  async #read(file: string, window: Window): Promise<Read> {
    try {
      const path = await resolveClipFile(this.#options.root, file);
      const { video } = await this.#options.reader.read(path, {
        start: window.start,
        maxFrames: window.frames,
        size: window.size,
        fit: 'cover',
        ...(window.retimed ? { rate: window.rate } : {}),
      });
      if (video.frames === window.frames) return { video };
      return { reason: `${video.frames} frames where ${window.frames} were planned; has the file changed?` };
    } catch (error) {
      return error instanceof UserError ? { reason: error.message } : { fault: error };
    }
  }

  #giveUp(file: string, reason: string): void {
    if (this.#bad.has(file)) return;
    this.#bad.add(file);
    this.#options.onBadFile?.(file, reason);
  }

  #epochOf(position: number): number {
    return Math.floor(position / this.#options.windows.length);
  }

  #windowAt(position: number): ClipWindow {
    const { windows } = this.#options;
    const index = this.#orderOf(this.#epochOf(position))[position % windows.length] ?? 0;
    const window = windows[index];
    if (window === undefined) throw new Error(`ClipSource: no window ${index}`);
    return window;
  }

  #orderOf(epoch: number): Uint32Array {
    let order = this.#orders.get(epoch);
    if (order === undefined) {
      order = permutation(fold(this.#key, epoch), this.#options.windows.length);
      this.#orders.set(epoch, order);
      // Positions only grow: epochs before the one being delivered are never needed again.
      for (const old of this.#orders.keys()) {
        if (old < this.#epochOf(this.#position)) this.#orders.delete(old);
      }
    }
    return order;
  }
}

/** How reading a window ended; a `fault` is an error of ours. */
type Read = { readonly video: Video } | { readonly reason: string } | { readonly fault: unknown };

type Pending = { readonly read: Promise<Read>; readonly bytes: number };

function digestWindows(windows: readonly ClipWindow[]): string {
  const hash = createHash('sha256');
  for (const { file, window } of windows) {
    const { start, frames, rate, retimed, size } = window;
    hash.update(`${JSON.stringify([file, start, frames, rate, retimed, size.width, size.height])}\n`);
  }
  return hash.digest('hex').slice(0, 32);
}

function checkState(state: ClipSourceState, seed: number, digest: string, count: number): void {
  if (state.seed !== seed) {
    throw new UserError(
      `the data order was begun with seed ${state.seed}, not ${seed}; resume with seed ${state.seed}`,
    );
  }
  if (state.windows !== digest) {
    throw new UserError(
      `the dataset or its plan has changed since the run began (${state.count} windows then, ${count} now); ` +
        'restore it, or begin a new run',
    );
  }
  if (!Number.isSafeInteger(state.position) || state.position < 0) {
    throw new UserError(`the data position ${state.position} is no whole number; the checkpoint is damaged`);
  }
}
