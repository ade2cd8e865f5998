import { Canvas, type View, viewOf } from '../data/worlds/canvas.ts';
import type { ObjectState } from '../data/worlds/motion.ts';
import { paletteOf } from '../data/worlds/palette.ts';
import {
  type Background,
  type Colour,
  type Finish,
  finishes,
  type SceneObject,
  type Shape,
} from '../data/worlds/scene.ts';
import { geometries } from '../data/worlds/shapes.ts';
import { Sprite } from '../data/worlds/sprite.ts';
import { stageFor } from '../data/worlds/stage.ts';
import { frameAt, type Size, type Video } from '../video/frames.ts';
import { gaussianKernel } from './degrade.ts';
import type { Plate } from './plate.ts';
import type { Pose } from './silhouette.ts';

/** How an object is made, beside its shape and colour. */
export interface Look {
  readonly finish: Finish;
  /** -1 when the light comes from the left, 1 from the right. */
  readonly side: number;
}

/** Every look. */
export const looks: readonly Look[] = finishes.flatMap((finish) => [
  { finish, side: -1 },
  { finish, side: 1 },
]);

/** A stretch of one frame in which candidates for an object are compared. */
export interface Stretch {
  readonly frame: number;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** Where pixels are compared, [height, width]: all of every candidate and a little more. */
  readonly compared: Uint8Array;
  /** What the frame shows, and what it would show without the object, sRGB 0 to 255, [height, width, 3]. */
  readonly seen: Float32Array;
  readonly behind: Float32Array;
}

/** Squared difference of a pixel, over three channels, beyond which it is no worse. */
const mostPerPixel = 3 * 48 ** 2;
/** Most that an object's colour may be off as a whole, of 255. */
const mostOffset = 20;

/** Renders an object in a pose into a frame and measures how well that explains what is seen there. */
export class Synthesizer {
  readonly #video: Video;
  readonly #plate: Plate;
  readonly #background: Background;
  readonly #canvas: Canvas;
  readonly #view: View;
  readonly #cover: Float32Array;
  /** The object alone, and the same on its way through a filter: [height, width, 4] of a stretch. */
  readonly #layer: Float32Array;
  readonly #scratch: Float32Array;

  /** For one video. */
  constructor(video: Video, background: Background, plate: Plate) {
    const { width, height } = video;
    this.#video = video;
    this.#plate = plate;
    this.#background = background;
    this.#canvas = new Canvas(width, height);
    this.#view = viewOf(stageFor(width, height), width, height, { zoom: 1, pan: 0, shakeX: 0, shakeY: 0 });
    this.#cover = new Float32Array(width * height);
    this.#layer = new Float32Array(4 * width * height);
    this.#scratch = new Float32Array(4 * width * height);
  }

  /** The part of a frame that silhouettes in these poses may touch. */
  stretch(frame: number, candidates: readonly { readonly shape: Shape; readonly pose: Pose }[]): Stretch {
    const { width, height } = this.#video;
    const boxes = candidates.map(({ shape, pose }) => boxOf(shape, pose));
    const clampTo = (value: number, most: number) => Math.max(0, Math.min(most - 1, value));
    const left = clampTo(Math.floor(Math.min(...boxes.map((box) => box[0])) - 3), width);
    const top = clampTo(Math.floor(Math.min(...boxes.map((box) => box[1])) - 3), height);
    const right = clampTo(Math.ceil(Math.max(...boxes.map((box) => box[2])) + 3), width);
    const bottom = clampTo(Math.ceil(Math.max(...boxes.map((box) => box[3])) + 3), height);
    const [w, h] = [right - left + 1, bottom - top + 1];
    const compared = new Uint8Array(w * h);
    for (const { shape, pose } of candidates) markSilhouette(compared, left, top, w, h, shape, pose);
    const pixels = frameAt(this.#video, frame);
    const seen = new Float32Array(3 * w * h);
    for (let y = 0; y < h; y++) {
      const from = 3 * ((top + y) * width + left);
      seen.set(pixels.subarray(from, from + 3 * w), 3 * y * w);
    }
    const area = { frame, left, top, width: w, height: h, compared, seen };
    return { ...area, behind: this.#behind(area) };
  }

  /**
   * Mean squared difference over the compared pixels, each limited, between what is seen and the object drawn there, its
   * edges and surface softened by a Gaussian, and its colour as a whole a little off where that fits better.
   */
  error(
    stretch: Stretch,
    object: { readonly shape: Shape; readonly colour: Colour },
    { finish, side }: Look,
    pose: Pose,
    blur: number,
  ): number {
    const { width, height, compared, seen, behind } = stretch;
    const sprite = new Sprite({ ...placeless, ...object, finish }, paletteOf(this.#background), side);
    this.#draw(sprite, stretch, pose);
    const soft = this.#layer;
    if (blur > 0) {
      const kernel = kernelOf(blur);
      softenAlong(soft, this.#scratch, 4, width, 4 * width, height, kernel);
      softenAlong(this.#scratch, soft, 4 * width, height, 4, width, kernel);
    }
    const offsets = [0, 0, 0];
    let squares = 1e-6;
    for (let pixel = 0; pixel < width * height; pixel++) {
      const cover = soft[4 * pixel + 3] ?? 0;
      if (cover <= 0 || compared[pixel] === 0) continue;
      squares += cover * cover;
      for (let c = 0; c < 3; c++) {
        const drawn = (soft[4 * pixel + c] ?? 0) + (1 - cover) * (behind[3 * pixel + c] ?? 0);
        const difference = (seen[3 * pixel + c] ?? 0) - drawn;
        offsets[c] = (offsets[c] ?? 0) + cover * Math.max(-60, Math.min(60, difference));
      }
    }
    const [r, g, b] = offsets.map((sum) => Math.max(-mostOffset, Math.min(mostOffset, sum / squares)));
    const shift = [r ?? 0, g ?? 0, b ?? 0];
    let [sum, count] = [0, 0];
    for (let pixel = 0; pixel < width * height; pixel++) {
      if (compared[pixel] === 0) continue;
      const cover = soft[4 * pixel + 3] ?? 0;
      let square = 0;
      for (let c = 0; c < 3; c++) {
        const at = 3 * pixel + c;
        const drawn = (soft[4 * pixel + c] ?? 0) + cover * (shift[c] ?? 0) + (1 - cover) * (behind[at] ?? 0);
        square += ((seen[at] ?? 0) - drawn) ** 2;
      }
      sum += Math.min(mostPerPixel, square);
      count++;
    }
    return sum / Math.max(1, count);
  }

  /** The same mean with nothing drawn. */
  errorWithout({ width, height, compared, seen, behind }: Stretch): number {
    let [sum, count] = [0, 0];
    for (let pixel = 0; pixel < width * height; pixel++) {
      if (compared[pixel] === 0) continue;
      let square = 0;
      for (let c = 3 * pixel; c < 3 * pixel + 3; c++) square += ((seen[c] ?? 0) - (behind[c] ?? 0)) ** 2;
      sum += Math.min(mostPerPixel, square);
      count++;
    }
    return sum / Math.max(1, count);
  }

  /** Draws the object alone into the layer: colour times cover, and cover. */
  #draw(sprite: Sprite, { left, top, width, height }: Stretch, pose: Pose): void {
    const canvas = this.#canvas;
    const cover = this.#cover;
    for (let y = top; y < top + height; y++) {
      canvas.data.fill(0, 3 * (y * canvas.width + left), 3 * (y * canvas.width + left + width));
      cover.fill(0, y * canvas.width + left, y * canvas.width + left + width);
    }
    const state = stateOf(pose, this.#view);
    sprite.draw(canvas, this.#view, state, 0);
    sprite.cover(canvas, this.#view, state, 0, cover);
    const out = this.#layer;
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0; x < width; x++, to += 4) {
        const pixel = (top + y) * canvas.width + left + x;
        out[to] = canvas.data[3 * pixel] ?? 0;
        out[to + 1] = canvas.data[3 * pixel + 1] ?? 0;
        out[to + 2] = canvas.data[3 * pixel + 2] ?? 0;
        out[to + 3] = cover[pixel] ?? 0;
      }
    }
  }

  /** The plate where it is known; elsewhere a straight line along the row between what is seen beside the object. */
  #behind({ left, top, width, height, compared, seen }: Omit<Stretch, 'behind'>): Float32Array {
    const out = seen.slice();
    const { known, rgb } = this.#plate;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (compared[y * width + x] === 0) continue;
        const pixel = (top + y) * this.#video.width + left + x;
        const sure = known[pixel] ?? 0;
        let [before, after] = [x, x];
        while (before > 0 && compared[y * width + before] === 1) before--;
        while (after < width - 1 && compared[y * width + after] === 1) after++;
        const t = after > before ? (x - before) / (after - before) : 0;
        for (let c = 0; c < 3; c++) {
          const a = seen[3 * (y * width + before) + c] ?? 0;
          const b = seen[3 * (y * width + after) + c] ?? 0;
          out[3 * (y * width + x) + c] = sure * (rgb[3 * pixel + c] ?? 0) + (1 - sure) * (a + (b - a) * t);
        }
      }
    }
    return out;
  }
}

const placeless: Omit<SceneObject, 'shape' | 'colour' | 'finish'> = {
  size: 'medium',
  position: { x: 0, height: 0, depth: 0 },
  motion: { kind: 'still' },
};

/** A pose in pixels as a state on the stage. */
function stateOf({ x, y, radius, squash, angle }: Pose, { left, top, pixel }: View): ObjectState {
  return {
    x: left + x * pixel,
    y: top + y * pixel,
    radius: radius * pixel,
    scaleX: 1 / Math.sqrt(squash),
    scaleY: Math.sqrt(squash),
    angle,
    opacity: 1,
    ground: 0,
  };
}

/** The pixels of a frame, row * width + column, on a silhouette or within 2 pixels of it. */
export function pixelsOf({ width, height }: Size, shape: Shape, pose: Pose): number[] {
  const marks = new Uint8Array(width * height);
  markSilhouette(marks, 0, 0, width, height, shape, pose);
  return [...marks.keys()].filter((pixel) => marks[pixel] === 1);
}

function boxOf(shape: Shape, { x, y, radius, squash }: Pose): readonly [number, number, number, number] {
  const reach = geometries[shape].reach * radius * Math.sqrt(Math.max(squash, 1 / squash));
  return [x - reach, y - reach, x + reach, y + reach];
}

/** Pixels on a silhouette or within 2 pixels of it. */
function markSilhouette(
  marks: Uint8Array,
  left: number,
  top: number,
  width: number,
  height: number,
  shape: Shape,
  { x, y, radius, squash, angle }: Pose,
): void {
  const { distance } = geometries[shape];
  const [wide, high] = [radius / Math.sqrt(squash), radius * Math.sqrt(squash)];
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  for (let j = 0; j < height; j++) {
    const dy = (top + j - y) / high;
    for (let i = 0; i < width; i++) {
      const dx = (left + i - x) / wide;
      if (distance(cos * dx + sin * dy, cos * dy - sin * dx) * radius < 2) marks[j * width + i] = 1;
    }
  }
}

const kernels = new Map<number, Float64Array>();

function kernelOf(blur: number): Float64Array {
  const kernel = kernels.get(blur) ?? gaussianKernel(blur, Math.ceil(2.4 * blur));
  kernels.set(blur, kernel);
  return kernel;
}

/**
 * Filters `count` lines of `length` pixels of 4 values by a symmetric kernel; outside is nothing. Pixels of a line are
 * `step` values apart, lines `stride`.
 */
function softenAlong(
  values: Float32Array,
  out: Float32Array,
  step: number,
  length: number,
  stride: number,
  count: number,
  kernel: Float64Array,
): void {
  const reach = (kernel.length - 1) / 2;
  for (let line = 0; line < count; line++) {
    for (let i = 0; i < length; i++) {
      let r = 0;
      let g = 0;
      let b = 0;
      let cover = 0;
      const last = Math.min(reach, length - 1 - i);
      for (let k = Math.max(-reach, -i); k <= last; k++) {
        const from = line * stride + (i + k) * step;
        const share = values[from + 3] ?? 0;
        if (share === 0) continue;
        const weight = kernel[k + reach] ?? 0;
        r += weight * (values[from] ?? 0);
        g += weight * (values[from + 1] ?? 0);
        b += weight * (values[from + 2] ?? 0);
        cover += weight * share;
      }
      const to = line * stride + i * step;
      out[to] = r;
      out[to + 1] = g;
      out[to + 2] = b;
      out[to + 3] = cover;
    }
  }
}
