import { WorldRenderer } from '../data/worlds/render.ts';
import { type Background, places, times, weathers } from '../data/worlds/scene.ts';
import { fold, keyFromSeed, RandomStream } from '../random/philox.ts';
import { type Size, videoFrom } from '../video/frames.ts';
import { type OklabVideo, toOklabVideo } from './oklab-video.ts';

/** Every background there is: space is always clear night. */
export const backgrounds: readonly Background[] = places.flatMap((place): Background[] =>
  place === 'space'
    ? [{ place, time: 'night', weather: 'clear' }]
    : times.flatMap((time) => weathers.map((weather) => ({ place, time, weather }))),
);

/** Cells along each side of the frame over which colours are averaged. */
const grid = 12;
/** Empty scenes of each background that are rendered to know it. */
const examples = 8;
/** What codecs, decoders and objects' light may change, in Oklab, beside the differences between examples. */
const tolerance = 0.025;
/** A cell counts no more than this: one that is hidden by an object is no evidence. */
const mostPerCell = 8;

/** Mean and variance of a background in each cell. */
interface Appearance {
  readonly background: Background;
  /** [grid, grid, 3]. */
  readonly mean: Float32Array;
  readonly variance: Float32Array;
}

/** Tells backgrounds apart by their colours in a coarse grid, at one frame size. */
export class BackgroundClassifier {
  readonly #appearances: readonly Appearance[];

  /** Renders examples of every background: about a second. */
  constructor(size: Size) {
    this.#appearances = backgrounds.map((background) => appearanceOf(background, size));
  }

  /** The background that a video is most like. */
  classify(video: OklabVideo): Background {
    const seen = gridMedians(video);
    let best: Appearance | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const appearance of this.#appearances) {
      const distance = distanceTo(appearance, seen);
      if (distance < least) {
        least = distance;
        best = appearance;
      }
    }
    if (best === undefined) throw new RangeError('there are no backgrounds');
    return best.background;
  }
}

/** Sum over cells of squared differences in standard deviations, each limited. */
function distanceTo({ mean, variance }: Appearance, seen: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < seen.length; i += 3) {
    let squares = 0;
    let spread = 0;
    for (let c = i; c < i + 3; c++) {
      const v = (variance[c] ?? 0) + tolerance * tolerance;
      squares += ((seen[c] ?? 0) - (mean[c] ?? 0)) ** 2 / v;
      spread += Math.log(v / (tolerance * tolerance));
    }
    sum += Math.min(mostPerCell, squares) + 0.5 * spread;
  }
  return sum;
}

function appearanceOf(background: Background, { width, height }: Size): Appearance {
  const seconds = 2;
  const key = fold(keyFromSeed(0), `background ${background.place} ${background.time} ${background.weather}`);
  const mean = new Float32Array(3 * grid * grid);
  const variance = new Float32Array(3 * grid * grid);
  for (let i = 0; i < examples; i++) {
    const random = new RandomStream(fold(key, i));
    const scene = {
      seconds,
      background,
      camera: { kind: 'still' },
      objects: [],
      decor: random.int(2 ** 32),
    } as const;
    const pixels = new WorldRenderer(scene, width, height).frame(random.uniform(0, seconds));
    const cells = gridMedians(toOklabVideo(videoFrom(pixels, { width, height, rate: 1 })));
    for (const [c, value] of cells.entries()) {
      mean[c] = (mean[c] ?? 0) + value / examples;
      variance[c] = (variance[c] ?? 0) + (value * value) / examples;
    }
  }
  for (const [c, value] of mean.entries()) variance[c] = Math.max(0, (variance[c] ?? 0) - value * value);
  return { background, mean, variance };
}

/** Means over each cell in a few frames, and of those the median over time: [grid, grid, 3]. What moves drops out. */
function gridMedians({ data, frames, width, height }: OklabVideo): Float32Array {
  const shown = Math.min(frames, 9);
  const size = 3 * grid * grid;
  const series = Array.from({ length: shown }, (_, i) => {
    const frame = shown === 1 ? 0 : Math.round((i * (frames - 1)) / (shown - 1));
    return cellMeans(
      data.subarray(3 * width * height * frame, 3 * width * height * (frame + 1)),
      width,
      height,
    );
  });
  return Float32Array.from({ length: size }, (_, c) => {
    const values = series.map((cells) => cells[c] ?? 0).sort((a, b) => a - b);
    return values[Math.floor(values.length / 2)] ?? 0;
  });
}

function cellMeans(pixels: Float32Array, width: number, height: number): Float32Array {
  const sums = new Float32Array(3 * grid * grid);
  const counts = new Float32Array(grid * grid);
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor((y * grid) / height);
    for (let x = 0; x < width; x++, at += 3) {
      const to = row * grid + Math.floor((x * grid) / width);
      counts[to] = (counts[to] ?? 0) + 1;
      for (let c = 0; c < 3; c++) sums[3 * to + c] = (sums[3 * to + c] ?? 0) + (pixels[at + c] ?? 0);
    }
  }
  return sums.map((sum, i) => sum / Math.max(1, counts[Math.floor(i / 3)] ?? 1));
}
