import type { Size } from '../video/frames.ts';
import { floorFrames, type WindowSpec } from './window.ts';

/** What planning needs to know of a file: the shape of every frame in it. */
export type FrameFacts = Size & {
  /** Shape [frames]: when each frame of the file appears, in seconds, ascending. */
  readonly timestamps: Float64Array;
  /** Frames per second that the file claims; used where the timestamps agree with it. */
  readonly rate: number;
  /** A picture rather than a video. */
  readonly still: boolean;
};

/** Frames `from` up to, not including, `to` of a file, in the order they appear. */
export type FrameRange = { readonly from: number; readonly to: number };

/** A stretch of a clip as training sees it. */
export type Window = {
  /** The frames of the file that it spans; frames left out by re-timing are among them. */
  readonly source: FrameRange;
  /** When its first frame appears in the file, in seconds. */
  readonly start: number;
  /** Frames in the window. */
  readonly frames: number;
  /** Frames per second of the window. */
  readonly rate: number;
  /** Whether frames are chosen by time, at `rate`; otherwise every frame of `source` is in the window once. */
  readonly retimed: boolean;
  /** Frames of `source` that re-timing leaves out. */
  readonly leftOut: number;
  /** Frames of the window that show the same frame of the file as the one before. */
  readonly repeated: number;
  /** Size of the frames given to training, in pixels; a file of another aspect ratio is scaled to cover it and cropped. */
  readonly size: Size;
};

/** Frames of a file that no window has, and why. */
export type Trim = FrameRange & {
  readonly reason: string;
  /** Whether they are no part of the clip, by its time range in the manifest. */
  readonly outside: boolean;
};

/** Every {@link Outcome}, in the order of reports. */
export const outcomes = ['whole', 'trimmed', 'windows', 'retimed', 'skipped'] as const;

/**
 * What becomes of a clip: `whole` (one window has every frame), `trimmed` (one window has all but a few frames),
 * `windows` (cut into several), `retimed` (frames left out or repeated to change or even the rate; perhaps cut as
 * well), `skipped`.
 */
export type Outcome = (typeof outcomes)[number];

/** The plan for one clip. The sources of its windows and the trims together are the frames of the file, each once. */
export type ClipPlan = {
  readonly outcome: Outcome;
  /** Why, for people: one short phrase for each thing that happens to the clip. */
  readonly reasons: readonly string[];
  readonly windows: readonly Window[];
  readonly trimmed: readonly Trim[];
};

/**
 * Decides what training does with a clip: a pure function.
 *
 * Windows are cut one after another from the start, as long as the recipe allows; the last may be shorter. Each
 * starts on a frame of the file. The picture is scaled down at its own aspect ratio until it fits, and loses less than
 * one patch on a side to make its sides multiples of the patch.
 *
 * @param range the clip's part of the file, in seconds.
 */
export function planClip(
  facts: FrameFacts,
  range: { readonly start: number; readonly end: number },
  spec: WindowSpec,
): ClipPlan {
  const all = facts.timestamps.length;
  const inside = framesWithin(facts.timestamps, range);
  const outside: Trim[] = [
    { from: 0, to: inside.from, reason: 'before the clip begins', outside: true },
    { from: inside.to, to: all, reason: 'after the clip ends', outside: true },
  ];
  const skip = (reason: string): ClipPlan => {
    const trimmed = [outside[0], { ...inside, reason, outside: false }, outside[1]].filter(
      (trim) => trim !== undefined,
    );
    return { outcome: 'skipped', reasons: [reason], windows: [], trimmed: trimmed.filter(isNotEmpty) };
  };

  if (inside.to === inside.from) return skip(`no frame between ${range.start} s and ${range.end} s`);
  const fitted = fitSize(facts, spec);
  if (typeof fitted === 'string') return skip(fitted);
  const cut = facts.still ? stillWindow(facts, fitted.size) : cutVideo(facts, inside, spec, fitted.size);
  if (typeof cut === 'string') return skip(cut);

  const trimmed = [outside[0], ...cut.trimmed, outside[1]]
    .filter((trim) => trim !== undefined)
    .filter(isNotEmpty);
  return {
    outcome: outcomeOf(cut),
    reasons: [...cut.reasons, ...fitted.reasons],
    windows: cut.windows,
    trimmed,
  };
}

type Cut = {
  readonly windows: readonly Window[];
  readonly trimmed: readonly Trim[];
  readonly reasons: readonly string[];
};

function outcomeOf(cut: Cut): Outcome {
  if (cut.windows.some(({ retimed }) => retimed)) return 'retimed';
  if (cut.windows.length > 1) return 'windows';
  return cut.trimmed.some(isNotEmpty) ? 'trimmed' : 'whole';
}

function isNotEmpty(range: FrameRange): boolean {
  return range.to > range.from;
}

/** Timestamps are rounded by containers, to a millisecond at worst. */
const tolerance = 0.001;

function framesWithin(timestamps: Float64Array, range: { start: number; end: number }): FrameRange {
  const from = timestamps.findIndex((t) => t >= range.start - tolerance);
  if (from < 0) return { from: timestamps.length, to: timestamps.length };
  const past = timestamps.findIndex((t, i) => i >= from && t >= range.end - tolerance);
  return { from, to: past < 0 ? timestamps.length : past };
}

function stillWindow(facts: FrameFacts, size: Size): Cut {
  const window: Window = {
    source: { from: 0, to: 1 },
    start: facts.timestamps[0] ?? 0,
    frames: 1,
    rate: 1,
    retimed: false,
    leftOut: 0,
    repeated: 0,
    size,
  };
  return { windows: [window], trimmed: [], reasons: ['a still'] };
}

function cutVideo(facts: FrameFacts, inside: FrameRange, spec: WindowSpec, size: Size): Cut | string {
  const timing = measureTiming(facts, inside);
  const target = chooseRate(timing, spec);
  const shortest = shortestWindow(target.rate, spec);
  if (spec.maxFrames === 1) return 'a video, and the recipe takes stills only';
  if (shortest > spec.maxFrames) {
    return `${spec.minSeconds} s at ${fps(target.rate)} need ${shortest} frames, and the recipe takes ${spec.maxFrames} at most`;
  }
  const windows: Window[] = [];
  let next = inside.from;
  while (next < inside.to) {
    const pick = target.retimed ? pickByTime : pickEvery;
    const picked = pick(facts.timestamps, { from: next, to: inside.to }, target.rate, spec);
    if (picked.length < shortest) break;
    const window = toWindow(picked, facts.timestamps, target, size);
    windows.push(window);
    next = window.source.to;
  }
  const frames = inside.to - inside.from;
  if (windows.length === 0) return tooShort(frames, timing.rate, shortest, target.rate, spec);
  const reason = leftOver(inside.to - next, shortest);
  const trimmed: Trim[] = [{ from: next, to: inside.to, reason, outside: false }];
  return { windows, trimmed, reasons: explain(windows, trimmed, frames, timing, target, spec) };
}

type Timing = {
  /** Frames per second, as most frames follow one another. */
  readonly rate: number;
  /** Whether frames follow one another at even distances. */
  readonly even: boolean;
};

function measureTiming(facts: FrameFacts, { from, to }: FrameRange): Timing {
  const first = facts.timestamps[from] ?? 0;
  const last = facts.timestamps[to - 1] ?? first;
  const intervals = to - from - 1;
  if (intervals < 1 || last <= first) return { rate: facts.rate, even: true };
  const average = intervals / (last - first);
  const typical = 1 / typicalInterval(facts.timestamps.subarray(from, to));
  const isOffBeat = (t: number, i: number) =>
    i >= from && i < to && Math.abs((t - first) * average - (i - from)) > 0.25 + tolerance * average;
  const even = !facts.timestamps.some(isOffBeat);
  // Where frames are missing here and there, the rate is that of the others.
  const measured = even ? average : Math.max(average, typical);
  const agrees = Math.abs(facts.rate / measured - 1) < 0.02;
  return { rate: agrees ? facts.rate : measured, even };
}

/** The median distance between frames, in seconds. */
function typicalInterval(timestamps: Float64Array): number {
  const intervals = timestamps.subarray(1).map((t, i) => t - (timestamps[i] ?? 0));
  return intervals.sort()[intervals.length >> 1] ?? 1;
}

type TargetRate = { readonly rate: number; readonly retimed: boolean };

/** A clip within 1% of the recipe's rate is taken as it is: nobody sees the difference, and no frame is lost. */
function chooseRate(timing: Timing, spec: WindowSpec): TargetRate {
  const rate = spec.rate === 'native' ? timing.rate : Math.min(spec.rate, timing.rate);
  const isNear = timing.rate / rate < 1.01;
  return timing.even && isNear ? { rate: timing.rate, retimed: false } : { rate, retimed: true };
}

/** Fewest frames of a video's window: `minSeconds`, and never a single frame. */
function shortestWindow(rate: number, spec: WindowSpec): number {
  const wanted = Math.max(2, Math.ceil(spec.minSeconds * rate - tolerance * rate));
  return 1 + Math.ceil((wanted - 1) / spec.stride.time) * spec.stride.time;
}

/** The frames of a window, as indices into the file: the next ones in order. */
function pickEvery(_: Float64Array, { from, to }: FrameRange, _rate: number, spec: WindowSpec): number[] {
  const frames = floorFrames(Math.min(to - from, spec.maxFrames), spec);
  return Array.from({ length: frames }, (_unused, i) => from + i);
}

/** The frames nearest in time to `start + k / rate`; of two equally near, the earlier. */
function pickByTime(
  timestamps: Float64Array,
  { from, to }: FrameRange,
  rate: number,
  spec: WindowSpec,
): number[] {
  const start = timestamps[from] ?? 0;
  const last = timestamps[to - 1] ?? start;
  const ticks = Math.floor((last - start + tolerance) * rate) + 1;
  const frames = floorFrames(Math.min(ticks, spec.maxFrames), spec);
  const picked: number[] = [];
  let at = from;
  for (let k = 0; k < frames; k++) {
    const tick = start + k / rate;
    while (at + 1 < to && distance(timestamps, at + 1, tick) < distance(timestamps, at, tick)) at++;
    picked.push(at);
  }
  return picked;
}

function distance(timestamps: Float64Array, index: number, moment: number): number {
  return Math.abs((timestamps[index] ?? 0) - moment);
}

function toWindow(
  picked: readonly number[],
  timestamps: Float64Array,
  target: TargetRate,
  size: Size,
): Window {
  const from = picked[0] ?? 0;
  const to = (picked.at(-1) ?? from) + 1;
  const distinct = new Set(picked).size;
  return {
    source: { from, to },
    start: timestamps[from] ?? 0,
    frames: picked.length,
    rate: target.rate,
    retimed: target.retimed,
    leftOut: to - from - distinct,
    repeated: picked.length - distinct,
    size,
  };
}

/** The size that training sees: the largest that loses least, or why there is none. */
function fitSize(facts: Size, spec: WindowSpec): { size: Size; reasons: string[] } | string {
  const { width, height } = facts;
  const { space } = spec.stride;
  if (Math.min(width, height) < space) {
    return `${width}x${height} is smaller than one patch of ${space}x${space}`;
  }
  const scale = Math.min(1, Math.sqrt(spec.maxPixels / (width * height)));
  const sides = (side: number) => {
    const low = Math.floor((side * scale) / space) * space;
    return [low, low + space].filter((s) => s >= space && s <= side);
  };
  const candidates = sides(width)
    .flatMap((w) => sides(height).map((h) => ({ width: w, height: h })))
    .filter((size) => size.width * size.height <= spec.maxPixels)
    .sort((a, b) => keptShare(b, facts) - keptShare(a, facts) || b.width * b.height - a.width * a.height);
  const size = candidates[0];
  if (size === undefined) {
    return `${width}x${height} is too long and narrow for ${spec.maxPixels} pixels in patches of ${space}`;
  }
  return { size, reasons: explainSize(facts, size) };
}

/** The share of a picture that is left when it covers `size`: 1 when the aspect ratios agree. */
function keptShare(size: Size, source: Size): number {
  const ratio = size.width / size.height / (source.width / source.height);
  return Math.min(ratio, 1 / ratio);
}

function explainSize(source: Size, size: Size): string[] {
  if (size.width === source.width && size.height === source.height) return [];
  const isScaled = size.width < source.width && size.height < source.height;
  const cropped = (1 - keptShare(size, source)) * 100;
  const loss = cropped < 0.05 ? '' : ` (${cropped.toFixed(1)}% of the picture is cut off)`;
  return [
    `${source.width}x${source.height} ${isScaled ? 'scaled' : 'cropped'} to ${size.width}x${size.height}${loss}`,
  ];
}

function explain(
  windows: readonly Window[],
  trimmed: readonly Trim[],
  frames: number,
  timing: Timing,
  target: TargetRate,
  spec: WindowSpec,
): string[] {
  const reasons: string[] = [];
  if (target.retimed) {
    const leftOut = windows.reduce((sum, window) => sum + window.leftOut, 0);
    const repeated = windows.reduce((sum, window) => sum + window.repeated, 0);
    const from = timing.even ? fps(timing.rate) : `uneven frames (mostly ${fps(timing.rate)})`;
    reasons.push(`${from} re-timed to ${fps(target.rate)}: ${leftOut} frames left out, ${repeated} repeated`);
  } else if (spec.rate !== 'native' && target.rate < spec.rate / 1.01) {
    reasons.push(`keeps its own ${fps(target.rate)}, slower than the recipe's ${fps(spec.rate)}`);
  }
  if (windows.length > 1) reasons.push(`${frames} frames cut into ${windows.length} windows`);
  for (const { from, to, reason } of trimmed.filter(isNotEmpty)) {
    reasons.push(`last ${plural(to - from, 'frame')} trimmed: ${reason}`);
  }
  if (reasons.length === 0) reasons.push(`${frames} frames at ${fps(target.rate)} are one window`);
  return reasons;
}

function leftOver(frames: number, shortest: number): string {
  const most = frames < shortest ? '' : ', once re-timed';
  return `too few for another window (${shortest} frames or more${most})`;
}

function tooShort(frames: number, from: number, shortest: number, to: number, spec: WindowSpec): string {
  const has = `${plural(frames, 'frame')} at ${fps(from)} (${(frames / from).toFixed(2)} s)`;
  const needs = `${shortest} frames at ${fps(to)}`;
  return `too short: has ${has}, and the shortest window is ${needs} (${spec.minSeconds} s or more)`;
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function fps(rate: number): string {
  return `${Number(rate.toFixed(2))} fps`;
}
