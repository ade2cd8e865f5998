import { fromOklab, mixRgb, toOklab } from '../data/worlds/colour.ts';
import { paletteOf } from '../data/worlds/palette.ts';
import type { Background, Place } from '../data/worlds/scene.ts';
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
/** Share of pixels that are neither as the plate has them nor shaded though no object is there: clouds drift, waves roll. */
const surpriseInTheSky = 0.03;
/** The same on the ground of each place. */
const surprises: { readonly [P in Place]: number } = {
  meadow: 0.05,
  sea: 0.3,
  desert: 0.03,
  city: 0.03,
  space: 0.03,
};
/** Where the ground begins, as a share of the height. */
const horizonAt = 0.57;
/** How much of a pixel's colour the darkest shadows take, and how likely a pixel on the ground is in one. */
const deepestShade = 0.7;
const shadeShare = 0.15;

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

/**
 * The evidence, with the background's density at each pixel taken from the plate as far as that is known: as it is there,
 * or, on the ground, as it is in the shade.
 */
export function withPlate(
  video: OklabVideo,
  evidence: Evidence,
  plate: Plate,
  background: Background,
): Evidence {
  const { data, frames, width, height } = video;
  const size = width * height;
  const behind = new Float32Array(evidence.behind.length);
  const shade = shadeOf(plate, background);
  const horizon = Math.floor(horizonAt * height) * width;
  for (let t = 0, i = 0; t < frames; t++) {
    for (let pixel = 0; pixel < size; pixel++, i++) {
      const onGround = pixel >= horizon;
      const surprise = onGround ? surprises[background.place] : surpriseInTheSky;
      const known = (1 - surprise) * (plate.known[pixel] ?? 0);
      const variance = Math.max(leastVariance, 1.5 * (plate.variance[pixel] ?? 0)) / 3;
      const l = (data[3 * i] ?? 0) - (plate.mean[3 * pixel] ?? 0);
      const a = (data[3 * i + 1] ?? 0) - (plate.mean[3 * pixel + 1] ?? 0);
      const b = (data[3 * i + 2] ?? 0) - (plate.mean[3 * pixel + 2] ?? 0);
      let near = (2 * Math.PI * variance) ** -1.5 * Math.exp((-0.5 * (l * l + a * a + b * b)) / variance);
      if (onGround) near += shadeShare * densityAlong(shade, 3 * pixel, l, a, b, variance);
      const before = evidence.behind[i] ?? 0;
      behind[i] = Math.log(known * ColourHistogram.cellVolume * near + (1 - known) * Math.exp(before));
    }
  }
  return { ...evidence, behind };
}

/** What full shade takes from each pixel of the plate, Oklab, f32 [height, width, 3]. */
function shadeOf({ rgb, mean }: Plate, background: Background): Float32Array {
  const { shadow } = paletteOf(background).lighting;
  const out = new Float32Array(mean.length);
  for (let i = 0; i < out.length; i += 3) {
    const shaded = toOklab(mixRgb([rgb[i] ?? 0, rgb[i + 1] ?? 0, rgb[i + 2] ?? 0], shadow, deepestShade));
    for (let c = 0; c < 3; c++) out[i + c] = (shaded[c] ?? 0) - (mean[i + c] ?? 0);
  }
  return out;
}

/** Density of a difference from the plate that lies somewhere on the way to full shade. */
function densityAlong(
  shade: Float32Array,
  at: number,
  l: number,
  a: number,
  b: number,
  variance: number,
): number {
  const [x, y, z] = [shade[at] ?? 0, shade[at + 1] ?? 0, shade[at + 2] ?? 0];
  const length = x * x + y * y + z * z + 1e-6;
  const t = Math.max(0, Math.min(1, (l * x + a * y + b * z) / length));
  const square = (l - t * x) ** 2 + (a - t * y) ** 2 + (b - t * z) ** 2;
  return (
    Math.exp((-0.5 * square) / variance) /
    (2 * Math.PI * variance * (Math.sqrt(length) + Math.sqrt(variance)))
  );
}
