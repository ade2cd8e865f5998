import type { FrameSource, SourceFrame } from './source.ts';

/** Which frames of a source are wanted. */
export interface Selection {
  /** Seconds; frames (or ticks of `rate`) from here on. */
  readonly start: number;
  /** Seconds; up to but not including here. Infinity for all. */
  readonly end: number;
  /** Frames per second to re-time to, or null to keep the file's own times. */
  readonly rate: number | null;
  /** Most frames to give. Infinity for all. */
  readonly maxFrames: number;
}

/** A frame to show at a time. It belongs to {@link select} and is freed when the next one is asked for. */
export interface Shown {
  readonly time: number;
  readonly frame: SourceFrame;
}

/** Counts of {@link select}; complete when it has ended. */
export interface SelectTally {
  given: number;
  repeated: number;
  dropped: number;
  /** Whether the source was read to its end. */
  reachedEnd: boolean;
}

// Times are sums of rounded numbers; a microsecond is far below any frame and far above the rounding.
const epsilon = 1e-6;

/** Chooses frames by time, and re-times them when a rate is given: nearest frame in time, the earlier one on a tie. */
export async function* select(
  source: Pick<FrameSource, 'next'>,
  wanted: Selection,
  tally: SelectTally,
): AsyncGenerator<Shown> {
  const frames =
    wanted.rate === null ? keepTimes(source, wanted, tally) : retime(source, wanted, wanted.rate, tally);
  if (wanted.maxFrames <= 0) return;
  for await (const shown of frames) {
    tally.given++;
    yield shown;
    if (tally.given >= wanted.maxFrames) return;
  }
}

async function* keepTimes(
  source: Pick<FrameSource, 'next'>,
  wanted: Selection,
  tally: SelectTally,
): AsyncGenerator<Shown> {
  for (;;) {
    const frame = await source.next();
    if (!frame) {
      tally.reachedEnd = true;
      return;
    }
    try {
      if (frame.time >= wanted.end - epsilon) return;
      if (frame.time >= wanted.start - epsilon) yield { time: frame.time, frame };
    } finally {
      frame.free();
    }
  }
}

async function* retime(
  source: Pick<FrameSource, 'next'>,
  wanted: Selection,
  rate: number,
  tally: SelectTally,
): AsyncGenerator<Shown> {
  let tick = 0;
  let held: SourceFrame | undefined;
  let next: SourceFrame | undefined;
  const timeOf = (k: number): number => wanted.start + k / rate;
  try {
    while (timeOf(tick) < wanted.end - epsilon) {
      next = await source.next();
      if (!next) tally.reachedEnd = true;
      if (held) {
        // `held` is nearest to all ticks before the middle between it and its successor. The last frame holds to its end,
        // less a quarter of a tick: containers round times, and that must not bring forth one frame more.
        const until = next ? (held.time + next.time) / 2 + epsilon : held.time + held.duration - 0.25 / rate;
        let shows = 0;
        for (; timeOf(tick) < Math.min(until, wanted.end - epsilon); tick++) {
          if (shows++ > 0) tally.repeated++;
          yield { time: timeOf(tick), frame: held };
        }
        if (shows === 0 && held.time >= wanted.start - epsilon) tally.dropped++;
        held.free();
      }
      held = next;
      next = undefined;
      if (!held) return;
    }
  } finally {
    held?.free();
    next?.free();
  }
}
