import { UserError } from '../errors.ts';
import type { Video } from '../video/frames.ts';
import { gaussianKernel } from './degrade.ts';

/** @throws UserError unless two videos have the same size and number of frames. */
function checkAlike(a: Video, b: Video): void {
  if (a.width === b.width && a.height === b.height && a.frames === b.frames) return;
  const text = ({ width, height, frames }: Video) => `${width}x${height}x${frames}`;
  throw new UserError(`videos of ${text(a)} and ${text(b)}: only videos of one size can be compared`);
}

/** Mean squared difference of 8-bit sRGB values, over all frames and channels. */
export function meanSquaredError(a: Video, b: Video): number {
  checkAlike(a, b);
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) sum += ((a.data[i] ?? 0) - (b.data[i] ?? 0)) ** 2;
  return sum / Math.max(1, a.data.length);
}

/** Peak signal-to-noise ratio of a mean squared error of 8-bit values, in decibels; infinite for 0. */
export function psnrOf(squaredError: number): number {
  return 10 * Math.log10(255 ** 2 / squaredError);
}

/** Window of {@link ssim}: 11 pixels of a Gaussian of standard deviation 1.5. */
const window = gaussianKernel(1.5, 5);
const c1 = (0.01 * 255) ** 2;
const c2 = (0.03 * 255) ** 2;

/**
 * Structural similarity of luma (Wang et al. 2004, with their Gaussian window and constants), averaged over the places
 * where the window lies in the frame, and over frames: 1 for equal videos.
 *
 * @throws UserError when the videos differ in size, or frames are smaller than the window of 11 pixels.
 */
export function ssim(a: Video, b: Video): number {
  checkAlike(a, b);
  const { width, height, frames } = a;
  if (Math.min(width, height) < window.length) {
    throw new UserError(`frames of ${width}x${height}: structural similarity needs 11 pixels at least`);
  }
  let sum = 0;
  for (let frame = 0; frame < frames; frame++)
    sum += frameSsim(luma(a, frame), luma(b, frame), width, height);
  return sum / Math.max(1, frames);
}

/** 0.299 R + 0.587 G + 0.114 B of a frame, [height, width]. */
function luma({ data, width, height }: Video, frame: number): Float64Array {
  const size = width * height;
  return Float64Array.from({ length: size }, (_, i) => {
    const at = 3 * (frame * size + i);
    return 0.299 * (data[at] ?? 0) + 0.587 * (data[at + 1] ?? 0) + 0.114 * (data[at + 2] ?? 0);
  });
}

function frameSsim(x: Float64Array, y: Float64Array, width: number, height: number): number {
  const weighted = (values: Float64Array) => windowed(values, width, height);
  const product = (p: Float64Array, q: Float64Array) => p.map((value, i) => value * (q[i] ?? 0));
  const [mx, my] = [weighted(x), weighted(y)];
  const [xx, yy, xy] = [weighted(product(x, x)), weighted(product(y, y)), weighted(product(x, y))];
  let sum = 0;
  for (let i = 0; i < mx.length; i++) {
    const [a, b] = [mx[i] ?? 0, my[i] ?? 0];
    const varianceX = (xx[i] ?? 0) - a * a;
    const varianceY = (yy[i] ?? 0) - b * b;
    const covariance = (xy[i] ?? 0) - a * b;
    const light = (2 * a * b + c1) / (a * a + b * b + c1);
    sum += (light * (2 * covariance + c2)) / (varianceX + varianceY + c2);
  }
  return sum / mx.length;
}

/** Means under the window wherever it fits, [height - 10, width - 10]. */
function windowed(values: Float64Array, width: number, height: number): Float64Array {
  const [wide, high] = [width - window.length + 1, height - window.length + 1];
  const across = new Float64Array(height * wide);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < wide; x++) {
      let sum = 0;
      for (let k = 0; k < window.length; k++) sum += (window[k] ?? 0) * (values[y * width + x + k] ?? 0);
      across[y * wide + x] = sum;
    }
  }
  const out = new Float64Array(high * wide);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      let sum = 0;
      for (let k = 0; k < window.length; k++) sum += (window[k] ?? 0) * (across[(y + k) * wide + x] ?? 0);
      out[y * wide + x] = sum;
    }
  }
  return out;
}

/**
 * How much a video flickers: the mean absolute second difference over time, |x(t+1) - 2 x(t) + x(t-1)|, of 8-bit sRGB
 * values. Things that move evenly have little of it, what comes and goes from frame to frame much. 0 below three frames.
 */
export function flickerOf({ data, width, height, frames }: Video): number {
  const size = 3 * width * height;
  if (frames < 3) return 0;
  let sum = 0;
  for (let i = size; i < (frames - 1) * size; i++) {
    sum += Math.abs((data[i + size] ?? 0) - 2 * (data[i] ?? 0) + (data[i - size] ?? 0));
  }
  return sum / ((frames - 2) * size);
}
