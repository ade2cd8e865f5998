import type { Colour } from '../data/worlds/scene.ts';
import { type Evidence, evidenceOfColour, evidenceOfObjects } from './colour-model.ts';
import { type Region, regionsOf } from './regions.ts';

/** One object through a video, as far as its colour shows it. */
export interface Track {
  readonly colour: Colour;
  /** Evidence of that colour, at least -1.5: stripes look like background but are inside; f32 [frames, height, width]. */
  readonly values: Float32Array;
  /** Where it is in each frame; undefined where it is not seen. */
  readonly regions: readonly (Region | undefined)[];
  /** Evidence for it, summed over frames. */
  readonly gain: number;
}

/**
 * An object is not seen in frames where its gain is below this share of what it has in its clear frames: of the value
 * that a fifth of all frames exceed, so that what blinks does not become what is there in between.
 */
const seenShare = 0.2;
/** An object is seen in at least this share of the frames. */
const leastSeen = 0.3;
/** Evidence below this counts no more: stripes look like background, but are inside. */
const floor = -1.5;
/** A pixel speaks against a colour no more than this, as a logarithm of odds. */
const mostSurprise = 5;
/** Looks for objects, one after the other, the clearest first. */
export class TrackFinder {
  readonly #evidence: Evidence;
  readonly #anything: Float32Array;
  readonly #blocked: Uint8Array;
  readonly #scale: number;

  /** For one video. */
  constructor(evidence: Evidence) {
    const { width, height, frames } = evidence;
    this.#evidence = evidence;
    this.#anything = evidenceOfObjects(evidence);
    this.#blocked = new Uint8Array(frames * width * height);
    this.#scale = (Math.min(width, height) / 64) ** 2;
  }

  /**
   * The clearest object that is left: what differs most from the background is followed from frame to frame, its colour
   * decided, and what has that colour followed. Undefined when nothing is left.
   *
   * @param leastGain least mean gain over the frames that show it, for frames of 64x64 pixels.
   */
  next(leastGain: number): Track | undefined {
    const evidence = this.#evidence;
    const least = Math.round(6 * this.#scale);
    const colour = colourOf(evidence, follow(this.#anything, this.#blocked, evidence, least));
    const values = evidenceOfColour(evidence, colour).map((value) => Math.max(floor, value));
    const regions = follow(values, this.#blocked, evidence, least);
    const seen = regions.filter((region) => region !== undefined);
    const gain = seen.reduce((sum, region) => sum + region.gain, 0);
    const isSeen = seen.length >= Math.max(1, leastSeen * evidence.frames);
    return isSeen && gain / seen.length >= leastGain * this.#scale
      ? { colour, values, regions, gain }
      : undefined;
  }

  /** The share of pixels of a frame that are crossed out. */
  crossedOut(frame: number, pixels: readonly number[]): number {
    const first = frame * this.#evidence.width * this.#evidence.height;
    const count = pixels.filter((pixel) => this.#blocked[first + pixel] === 1).length;
    return count / Math.max(1, pixels.length);
  }

  /** Crosses out pixels of a frame that are explained. */
  crossOut(frame: number, pixels: Iterable<number>): void {
    const first = frame * this.#evidence.width * this.#evidence.height;
    for (const pixel of pixels) this.#blocked[first + pixel] = 1;
  }
}

/** The colour that explains the pixels of regions best. */
function colourOf(evidence: Evidence, regions: readonly (Region | undefined)[]): Colour {
  const { width, height, objects } = evidence;
  let best: Colour = 'red';
  let most = Number.NEGATIVE_INFINITY;
  for (const [colour, densities] of objects) {
    let sum = 0;
    for (const [frame, region] of regions.entries()) {
      for (const pixel of region?.pixels ?? []) {
        const i = frame * width * height + pixel;
        const odds = (evidence.strongest[i] ?? 0) - (evidence.behind[i] ?? 0);
        if (odds > 0) sum += Math.max(-mostSurprise, (densities[i] ?? 0) - (evidence.strongest[i] ?? 0));
      }
    }
    if (sum > most) {
      most = sum;
      best = colour;
    }
  }
  return best;
}

function follow(
  values: Float32Array,
  blocked: Uint8Array,
  { width, height, frames }: Evidence,
  least: number,
): (Region | undefined)[] {
  const size = width * height;
  const found = Array.from({ length: frames }, (_, frame) => {
    const open = new Float32Array(size);
    for (let pixel = 0, i = frame * size; pixel < size; pixel++, i++) {
      open[pixel] = blocked[i] === 1 ? -4 : Math.max(floor, values[i] ?? 0);
    }
    return regionsOf(open, width, height, least).slice(0, 4);
  });
  const regions = linked(found, width, Math.min(width, height));
  const gains = regions
    .flatMap((region) => (region === undefined ? [] : [region.gain]))
    .sort((a, b) => a - b);
  const clear = gains[Math.floor(0.8 * gains.length)] ?? 0;
  return regions.map((region) =>
    region !== undefined && region.gain >= seenShare * clear ? region : undefined,
  );
}

/** A region of each frame, so that gains are large and ways short (Viterbi 1967). */
function linked(found: readonly (readonly Region[])[], width: number, short: number): (Region | undefined)[] {
  interface Step {
    readonly region: Region | undefined;
    readonly centre: readonly [number, number] | undefined;
    readonly score: number;
    readonly before: Step | undefined;
  }
  let steps: readonly Step[] = [{ region: undefined, centre: undefined, score: 0, before: undefined }];
  for (const regions of found) {
    const options = [...regions.map((region) => ({ region, centre: centreOf(region, width) })), undefined];
    steps = options.map((option) => {
      let best: Step | undefined;
      for (const step of steps) {
        // A way of a quarter of the frame costs as much as an object's worth of evidence in a fifth of it.
        const way = option && step.centre ? distance(option.centre, step.centre) / short : 0;
        const score = step.score + (option?.region.gain ?? 0) * (1 - Math.min(0.9, 1.6 * way));
        if (best === undefined || score > best.score) {
          best = { region: option?.region, centre: option?.centre ?? step.centre, score, before: step };
        }
      }
      return best as Step;
    });
  }
  let last: Step | undefined = steps.reduce((a, b) => (b.score > a.score ? b : a));
  const way: (Region | undefined)[] = [];
  for (; last?.before !== undefined; last = last.before) way.push(last.region);
  return way.reverse();
}

/** Mean column and row of a region. */
export function centreOf({ pixels }: Region, width: number): readonly [x: number, y: number] {
  let [x, y] = [0, 0];
  for (const pixel of pixels) {
    x += pixel % width;
    y += Math.floor(pixel / width);
  }
  return [x / pixels.length, y / pixels.length];
}

function distance([x0, y0]: readonly [number, number], [x1, y1]: readonly [number, number]): number {
  return Math.hypot(x1 - x0, y1 - y0);
}
