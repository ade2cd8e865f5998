import { fromOklab } from '../data/worlds/colour.ts';
import { ColourHistogram } from './colour-histogram.ts';
import { type Evidence, evidenceOfObjects } from './colour-model.ts';
import type { OklabVideo } from './oklab-video.ts';

/** What is behind the objects of a video, as far as its frames show it. */
export interface Plate {
  /** Mean colour where no object is, Oklab, f32 [height, width, 3]. */
  readonly mean: Float32Array;
  /** The same in sRGB, 0 to 255, f32 [height, width, 3]. */
  readonly rgb: Float32Array;
  /** Variance about it over time, of the three axes together, f32 [height, width]. */
  readonly variance: Float32Array;
  /** How surely the background was seen at all: 0 (always hidden) to 1, f32 [height, width]. */
  readonly known: Float32Array;
}

/** Frames that must show a pixel's background before it counts as known. */
const enoughFrames = 3;
/** Pixels that could be either, where this is the evidence, count half as background. */
const doubt = -0.5;
/** Least variance: what codecs, decoders and grass in the wind do. */
const leastVariance = 3 * 0.022 ** 2;
/** Colours further from the mean than so many variances have no share in it. */
const farAway = 6;
/** Share of pixels that are not as the plate has them though no object is there. */
const surprise = 0.02;

/** Averages each pixel over the frames in which it looks like background, then again over those near that average. */
export function estimatePlate(video: OklabVideo, evidence: Evidence): Plate {
  const { data, frames, width, height } = video;
  const size = width * height;
  const strongest = evidenceOfObjects(evidence);
  const mean = new Float32Array(3 * size);
  const variance = new Float32Array(size);
  const known = new Float32Array(size);
  const weights = new Float64Array(frames);
  for (let pixel = 0; pixel < size; pixel++) {
    for (let t = 0; t < frames; t++) {
      weights[t] = 1 / (1 + Math.exp(2 * ((strongest[t * size + pixel] ?? 0) - doubt)));
    }
    known[pixel] = meanOfLargest(weights, enoughFrames);
    let centre = averageOf(data, size, pixel, weights);
    for (let round = 0; round < 2; round++) {
      const limit = farAway * Math.max(leastVariance, centre.variance);
      for (let t = 0; t < frames; t++) {
        if (squareTo(data, 3 * (t * size + pixel), centre) > limit) weights[t] = 0;
      }
      centre = averageOf(data, size, pixel, weights);
    }
    mean.set([centre.l, centre.a, centre.b], 3 * pixel);
    variance[pixel] = centre.variance;
  }
  return { mean, rgb: toRgb(mean), variance, known };
}

/** Frames agree with each other where nothing moves, so that many of them in doubt are no more than one. */
function meanOfLargest(values: Float64Array, count: number): number {
  const largest = values.toSorted().subarray(-count);
  return largest.reduce((sum, value) => sum + value, 0) / largest.length;
}

function toRgb(lab: Float32Array): Float32Array {
  const out = new Float32Array(lab.length);
  for (let i = 0; i < lab.length; i += 3) {
    out.set(fromOklab([lab[i] ?? 0, lab[i + 1] ?? 0, lab[i + 2] ?? 0]), i);
  }
  return out;
}

interface Average {
  readonly l: number;
  readonly a: number;
  readonly b: number;
  readonly variance: number;
  readonly weight: number;
}

function averageOf(data: Float32Array, size: number, pixel: number, weights: Float64Array): Average {
  let [weight, l, a, b, squares] = [1e-9, 0, 0, 0, 0];
  for (let t = 0; t < weights.length; t++) {
    const w = weights[t] ?? 0;
    if (w === 0) continue;
    const at = 3 * (t * size + pixel);
    const [x, y, z] = [data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0];
    weight += w;
    l += w * x;
    a += w * y;
    b += w * z;
    squares += w * (x * x + y * y + z * z);
  }
  const centre = { l: l / weight, a: a / weight, b: b / weight, weight };
  const length = centre.l ** 2 + centre.a ** 2 + centre.b ** 2;
  return { ...centre, variance: Math.max(0, squares / weight - length) };
}

function squareTo(data: Float32Array, at: number, { l, a, b }: Average): number {
  return ((data[at] ?? 0) - l) ** 2 + ((data[at + 1] ?? 0) - a) ** 2 + ((data[at + 2] ?? 0) - b) ** 2;
}

/** The evidence, with the background's density at each pixel taken from the plate as far as that is known. */
export function withPlate(video: OklabVideo, evidence: Evidence, plate: Plate): Evidence {
  const { data, frames, width, height } = video;
  const size = width * height;
  const behind = new Float32Array(evidence.behind.length);
  for (let t = 0, i = 0; t < frames; t++) {
    for (let pixel = 0; pixel < size; pixel++, i++) {
      const known = (1 - surprise) * (plate.known[pixel] ?? 0);
      const variance = Math.max(leastVariance, 1.5 * (plate.variance[pixel] ?? 0)) / 3;
      const at = 3 * i;
      const square =
        ((data[at] ?? 0) - (plate.mean[3 * pixel] ?? 0)) ** 2 +
        ((data[at + 1] ?? 0) - (plate.mean[3 * pixel + 1] ?? 0)) ** 2 +
        ((data[at + 2] ?? 0) - (plate.mean[3 * pixel + 2] ?? 0)) ** 2;
      const near =
        (ColourHistogram.cellVolume / (2 * Math.PI * variance) ** 1.5) * Math.exp((-0.5 * square) / variance);
      const before = evidence.behind[i] ?? 0;
      const after = Math.log(known * near + (1 - known) * Math.exp(before));
      behind[i] = after;
    }
  }
  return { ...evidence, behind };
}
