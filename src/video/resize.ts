import { frameAt, type Size, type Video } from './frames.ts';

/**
 * A video at another size: each side by straight lines between pixel centres, over as many pixels as one of the result
 * covers when it gets smaller (a triangle filter). For frames of ours; files are resized as they are read.
 */
export function resizeVideo(video: Video, { width, height }: Size): Video {
  if (width === video.width && height === video.height) return video;
  const columns = tapsOf(video.width, width);
  const rows = tapsOf(video.height, height);
  const data = new Uint8ClampedArray(video.frames * height * width * 3);
  for (let frame = 0; frame < video.frames; frame++) {
    const narrow = resizedColumns(frameAt(video, frame), video, columns);
    writeRows(data, frame * height * width * 3, narrow, 3 * width, rows);
  }
  return { ...video, width, height, data: new Uint8Array(data.buffer) };
}

/** What one pixel of the result is made of along one axis: weights, summing to 1, of pixels from `start` on. */
interface Taps {
  readonly start: number;
  readonly weights: readonly number[];
}

function tapsOf(from: number, to: number): readonly Taps[] {
  const scale = from / to;
  const reach = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale - 0.5;
    const start = Math.max(0, Math.ceil(centre - reach));
    const end = Math.min(from - 1, Math.floor(centre + reach));
    const weights = Array.from({ length: end - start + 1 }, (_, k) =>
      Math.max(0, 1 - Math.abs(start + k - centre) / reach),
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}

/** Rows of a frame [height, width, 3] at the width that `taps` have. */
function resizedColumns(pixels: Uint8Array, { width, height }: Size, taps: readonly Taps[]): Float32Array {
  const out = new Float32Array(height * taps.length * 3);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (const { start, weights } of taps) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (const [k, weight] of weights.entries()) {
          sum += weight * (pixels[(y * width + start + k) * 3 + channel] ?? 0);
        }
        out[to++] = sum;
      }
    }
  }
  return out;
}

/** Rows of `length` values at the height that `taps` have; the array rounds to nearest and clamps. */
function writeRows(
  data: Uint8ClampedArray,
  offset: number,
  rows: Float32Array,
  length: number,
  taps: readonly Taps[],
): void {
  for (const [y, { start, weights }] of taps.entries()) {
    for (let x = 0; x < length; x++) {
      let sum = 0;
      for (const [k, weight] of weights.entries()) sum += weight * (rows[(start + k) * length + x] ?? 0);
      data[offset + y * length + x] = sum;
    }
  }
}
