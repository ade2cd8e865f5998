import { UserError } from '../../errors.ts';
import { targetSize } from './limits.ts';
import { type OpenedFile, openSource } from './open-source.ts';
import type { NextAnswer, OpenAnswer, OpenAsk } from './protocol.ts';
import { type SelectTally, type Shown, select } from './select.ts';
import { judge } from './shortfall.ts';
import type { FrameSource } from './source.ts';

// Frames that re-timing leaves out take time and fill no piece; a parent that hears nothing takes that for a hang.
const pieceMilliseconds = 2000;

/** When the frames of a piece appear; with the last piece the report. */
export type Piece = Pick<NextAnswer, 'timestamps' | 'report'>;

/** An open file on its way to the parent, piece by piece. */
export class Reading {
  readonly #ask: OpenAsk;
  readonly #file: OpenedFile;
  readonly #shown: AsyncGenerator<Shown>;
  readonly #tally: SelectTally = { given: 0, repeated: 0, dropped: 0, reachedEnd: false };
  readonly #times: number[] = [];
  private constructor(ask: OpenAsk, file: OpenedFile) {
    this.#ask = ask;
    this.#file = file;
    const { start, end, rate, maxFrames } = ask;
    const wanted = { start, end: end ?? Infinity, rate, maxFrames: maxFrames ?? Infinity };
    const source = ask.reportTimes ? recordTimes(file.source, this.#times) : file.source;
    this.#shown = select(source, wanted, this.#tally);
  }

  /** @throws UserError when the file cannot be opened. */
  static async open(ask: OpenAsk): Promise<Reading> {
    return new Reading(ask, await openSource(ask));
  }

  /** What holds for all frames to come. */
  get opened(): OpenAnswer {
    const { info } = this.#file.source;
    return {
      info,
      size: targetSize(this.#ask, info),
      rate: this.#ask.rate ?? this.#file.source.tally().rate,
    };
  }

  /**
   * The next piece.
   *
   * @param put takes the pixels of each frame in order, uint8 [height, width, 3]; they hold only during the call.
   * @throws UserError when the file has changed, or has no frame to give.
   */
  async next(put: (pixels: Uint8Array) => void): Promise<Piece> {
    const { size } = this.opened;
    const most = Math.max(1, Math.floor(this.#ask.pieceBytes / (size.width * size.height * 3)));
    const timestamps: number[] = [];
    const began = performance.now();
    while (timestamps.length < most && performance.now() - began < pieceMilliseconds) {
      const { value, done } = await this.#shown.next();
      if (done) return { timestamps, report: this.#report() };
      put(await value.frame.pixels());
      timestamps.push(value.time);
    }
    return { timestamps, report: null };
  }

  async close(): Promise<void> {
    await this.#shown.return(undefined);
    this.#file.source.close();
  }

  #report(): NextAnswer['report'] {
    this.#file.checkUnchanged();
    const { given, repeated, dropped, reachedEnd } = this.#tally;
    const tally = this.#file.source.tally();
    const shortfall = judge(tally, reachedEnd, given);
    if (given === 0) {
      const { path, start } = this.#ask;
      if (tally.frames > 0 && start >= tally.lastEnd - 1e-6) {
        throw new UserError(
          `${path}: no frame at ${start} s or later; it ends at ${tally.lastEnd.toFixed(3)} s`,
        );
      }
      if (tally.frames === 0) {
        throw new UserError(
          `${path}: no frame can be decoded (${shortfall?.reason ?? 'it holds none'}); leave it out or fetch it again`,
        );
      }
      throw new UserError(
        `${path}: no frame between ${start} and ${this.#ask.end ?? 'the end'} s; widen the range`,
      );
    }
    const times = this.#ask.reportTimes ? { times: this.#times } : {};
    return { frames: given, repeated, dropped, hidden: tally.hidden, shortfall, ...times };
  }
}

/** The same frames; writes down when each appears. */
function recordTimes(source: FrameSource, times: number[]): Pick<FrameSource, 'next'> {
  return {
    async next() {
      const frame = await source.next();
      if (frame) times.push(frame.time);
      return frame;
    },
  };
}
