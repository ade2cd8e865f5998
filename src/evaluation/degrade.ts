import { fold, type Key, normal } from '../random/philox.ts';
import { frameAt, type Video, videoFrom } from '../video/frames.ts';

/** How rendered pixels are spoilt, so that they look like those of a decoder. */
export interface Degradation {
  /** Standard deviation of a Gaussian blur, in pixels; 0 for none. */
  readonly blur: number;
  /** Standard deviation of Gaussian noise, of 255; 0 for none. Drawn anew for each frame. */
  readonly noise: number;
  /** Whether frames go through half their size and back, by averages and straight lines. */
  readonly halved?: boolean;
}

/** A spoilt copy of a video; the same key gives the same noise. */
export function degraded(video: Video, { blur, noise, halved = false }: Degradation, key: Key): Video {
  const { width, height, frames } = video;
  const data = new Uint8Array(video.data.length);
  const size = 3 * width * height;
  const kernel = gaussianKernel(blur);
  for (let t = 0; t < frames; t++) {
    const plain = Float32Array.from(frameAt(video, t));
    const small = halved ? throughHalf(plain, width, height) : plain;
    const soft = blur > 0 ? filtered(small, width, height, kernel) : small;
    const draws = noise > 0 ? normal(fold(key, t), size) : undefined;
    for (let i = 0; i < size; i++) {
      const value = (soft[i] ?? 0) + (draws === undefined ? 0 : noise * (draws[i] ?? 0));
      data[t * size + i] = Math.min(255, Math.max(0, Math.round(value)));
    }
  }
  return { ...videoFrom(data, video), timestamps: video.timestamps };
}

/** A Gaussian of a standard deviation in pixels, cut off at 3 of them, of sum 1; [1] for 0. */
export function gaussianKernel(deviation: number, reach = Math.ceil(3 * deviation)): Float64Array {
  const kernel = Float64Array.from({ length: 2 * reach + 1 }, (_, i) =>
    deviation > 0 ? Math.exp(-0.5 * ((i - reach) / deviation) ** 2) : 1,
  );
  const sum = kernel.reduce((total, value) => total + value, 0);
  return kernel.map((value) => value / sum);
}

/** Both axes of [height, width, 3] filtered by a symmetric kernel; edges are repeated. */
function filtered(values: Float32Array, width: number, height: number, kernel: Float64Array): Float32Array {
  const across = filteredAlong(values, width, height, kernel, 1, 0);
  return filteredAlong(across, width, height, kernel, 0, 1);
}

function filteredAlong(
  values: Float32Array,
  width: number,
  height: number,
  kernel: Float64Array,
  stepX: number,
  stepY: number,
): Float32Array {
  const out = new Float32Array(values.length);
  const reach = (kernel.length - 1) / 2;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let k = -reach; k <= reach; k++) {
        const fromX = Math.min(width - 1, Math.max(0, x + k * stepX));
        const fromY = Math.min(height - 1, Math.max(0, y + k * stepY));
        const weight = kernel[k + reach] ?? 0;
        const from = 3 * (fromY * width + fromX);
        const to = 3 * (y * width + x);
        for (let c = 0; c < 3; c++) out[to + c] = (out[to + c] ?? 0) + weight * (values[from + c] ?? 0);
      }
    }
  }
  return out;
}

/** [height, width, 3] averaged down to half its size and drawn up again. */
function throughHalf(values: Float32Array, width: number, height: number): Float32Array {
  const [w, h] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const pixel = (x: number, y: number, c: number) =>
    values[3 * (Math.min(height - 1, y) * width + Math.min(width - 1, x)) + c] ?? 0;
  const half = (x: number, y: number, c: number) => {
    const [i, j] = [2 * Math.min(w - 1, Math.max(0, x)), 2 * Math.min(h - 1, Math.max(0, y))];
    return 0.25 * (pixel(i, j, c) + pixel(i + 1, j, c) + pixel(i, j + 1, c) + pixel(i + 1, j + 1, c));
  };
  const out = new Float32Array(values.length);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [u, v] = [0.5 * x - 0.25, 0.5 * y - 0.25];
      const [i, j] = [Math.floor(u), Math.floor(v)];
      const [s, t] = [u - i, v - j];
      for (let c = 0; c < 3; c++, at++) {
        const upper = (1 - s) * half(i, j, c) + s * half(i + 1, j, c);
        const lower = (1 - s) * half(i, j + 1, c) + s * half(i + 1, j + 1, c);
        out[at] = (1 - t) * upper + t * lower;
      }
    }
  }
  return out;
}
