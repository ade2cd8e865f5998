import { mixRgb, type Rgb } from './colour.ts';
import { clamp01 } from './numeric.ts';
import type { CameraState, Stage } from './stage.ts';

/** How pixels lie on the stage at one time. */
export interface View {
  readonly width: number;
  readonly height: number;
  /** Stage units per pixel. */
  readonly pixel: number;
  /** Stage x of the centres of the first column, y of the first row. */
  readonly left: number;
  readonly top: number;
  /** Camera's way to the right: layers of parallax p are seen at x + p * pan. */
  readonly pan: number;
}

/** The view of a frame of `width` by `height` pixels through a camera. */
export function viewOf(stage: Stage, width: number, height: number, camera: CameraState): View {
  const pixel = (2 * stage.halfWidth) / width / camera.zoom;
  return {
    width,
    height,
    pixel,
    left: camera.shakeX - 0.5 * (width - 1) * pixel,
    top: camera.shakeY - 0.5 * (height - 1) * pixel,
    pan: camera.pan,
  };
}

/**
 * A frame being painted: sRGB values from 0 to 255 as floats, shape [height, width, 3]. Colours are mixed as sRGB, so that
 * a frame averaged down is close to the frame painted small.
 */
export class Canvas {
  readonly width: number;
  readonly height: number;
  readonly data: Float32Array;

  /** An unpainted canvas. */
  constructor(width: number, height: number) {
    this.width = width;
    this.height = height;
    this.data = new Float32Array(3 * width * height);
  }

  /** Mixes `alpha` (0 to 1) of a colour into pixel `index` (row * width + column). */
  blend(index: number, r: number, g: number, b: number, alpha: number): void {
    const at = 3 * index;
    const { data } = this;
    const r0 = data[at] ?? 0;
    const g0 = data[at + 1] ?? 0;
    const b0 = data[at + 2] ?? 0;
    data[at] = r0 + (r - r0) * alpha;
    data[at + 1] = g0 + (g - g0) * alpha;
    data[at + 2] = b0 + (b - b0) * alpha;
  }

  /** Rounds into 8-bit pixels, shape [height, width, 3]. */
  toBytes(out: Uint8Array): void {
    const { data } = this;
    for (let i = 0; i < data.length; i++) {
      out[i] = Math.max(0, Math.min(255, (data[i] ?? 0) + 0.5));
    }
  }

  /**
   * An ellipse around (x, y) with half axes rx and ry. `blur` widens its edge by that many stage units on either side.
   * Ellipses smaller than a pixel keep their amount of light.
   */
  ellipse(
    view: View,
    x: number,
    y: number,
    rx: number,
    ry: number,
    colour: Rgb,
    alpha: number,
    blur = 0,
  ): void {
    const { pixel } = view;
    const least = 0.55 * pixel;
    const wide = Math.max(rx, least);
    const high = Math.max(ry, least);
    const strength = alpha * (rx / wide) * (ry / high);
    const edge = 2 * blur + pixel;
    const [r, g, b] = colour;
    const { i0, i1, j0, j1 } = this.#range(
      view,
      x - wide - edge,
      x + wide + edge,
      y - high - edge,
      y + high + edge,
    );
    for (let j = j0; j < j1; j++) {
      const dy = (view.top + j * pixel - y) / high;
      for (let i = i0; i < i1; i++) {
        const dx = (view.left + i * pixel - x) / wide;
        const squared = dx * dx + dy * dy;
        // Distance to first order: level over the length of its gradient.
        const level = Math.sqrt(squared);
        const slope = Math.sqrt((dx * dx) / (wide * wide) + (dy * dy) / (high * high));
        const distance = level > 1e-6 ? ((level - 1) * level) / slope : -Math.min(wide, high);
        let cover = clamp01(0.5 - distance / edge);
        if (blur > 0) cover = cover * cover * (3 - 2 * cover);
        if (cover > 0) this.blend(j * view.width + i, r, g, b, cover * strength);
      }
    }
  }

  /** A rectangle from (x0, y0) to (x1, y1), covered exactly. */
  rectangle(view: View, x0: number, y0: number, x1: number, y1: number, colour: Rgb, alpha = 1): void {
    const { pixel } = view;
    const half = 0.5 * pixel;
    const [r, g, b] = colour;
    const { i0, i1, j0, j1 } = this.#range(view, x0 - half, x1 + half, y0 - half, y1 + half);
    for (let j = j0; j < j1; j++) {
      const y = view.top + j * pixel;
      const rows = (Math.min(y1, y + half) - Math.max(y0, y - half)) / pixel;
      if (rows <= 0) continue;
      for (let i = i0; i < i1; i++) {
        const x = view.left + i * pixel;
        const columns = (Math.min(x1, x + half) - Math.max(x0, x - half)) / pixel;
        if (columns > 0) this.blend(j * view.width + i, r, g, b, rows * columns * alpha);
      }
    }
  }

  /** A straight stroke from (x0, y0), `w0` thick, to (x1, y1), `w1` thick, with round ends. */
  stroke(
    view: View,
    x0: number,
    y0: number,
    x1: number,
    y1: number,
    w0: number,
    w1: number,
    colour: Rgb,
    alpha: number,
  ): void {
    const { pixel } = view;
    const thickest = Math.max(w0, w1);
    const thin = Math.max(1, (0.9 * pixel) / thickest);
    const strength = alpha / thin;
    const margin = 0.5 * thickest * thin + pixel;
    const dx = x1 - x0;
    const dy = y1 - y0;
    const lengthSquared = dx * dx + dy * dy + 1e-12;
    const [r, g, b] = colour;
    const { i0, i1, j0, j1 } = this.#range(
      view,
      Math.min(x0, x1) - margin,
      Math.max(x0, x1) + margin,
      Math.min(y0, y1) - margin,
      Math.max(y0, y1) + margin,
    );
    for (let j = j0; j < j1; j++) {
      const py = view.top + j * pixel - y0;
      for (let i = i0; i < i1; i++) {
        const px = view.left + i * pixel - x0;
        const t = clamp01((px * dx + py * dy) / lengthSquared);
        const ex = px - t * dx;
        const ey = py - t * dy;
        const distance = Math.sqrt(ex * ex + ey * ey) - 0.5 * thin * (w0 + (w1 - w0) * t);
        const cover = clamp01(0.5 - distance / pixel);
        if (cover > 0) this.blend(j * view.width + i, r, g, b, cover * strength);
      }
    }
  }

  /**
   * Everything from a ridge down to the row `bottom`. The ridge is at `ridgeY(x)`; its colour goes from `crest` there to
   * `foot` at the bottom. `parallax` is its share in pans.
   */
  ridge(
    view: View,
    parallax: number,
    bottom: number,
    ridgeY: (x: number) => number,
    crest: Rgb,
    foot: Rgb,
  ): void {
    const { pixel, width } = view;
    const shift = view.left + view.pan * parallax;
    let previous = ridgeY(shift - pixel);
    let here = ridgeY(shift);
    const last = Math.min(this.height, Math.ceil((bottom - view.top) / pixel + 1));
    for (let i = 0; i < width; i++) {
      const next = ridgeY(shift + (i + 1) * pixel);
      const slope = (next - previous) / (2 * pixel);
      const sharpness = 1 / (pixel * Math.sqrt(1 + slope * slope));
      const first = Math.max(0, Math.floor((here - view.top) / pixel - 0.5 - Math.abs(slope)));
      const depth = 1 / Math.max(bottom - here, 0.05);
      for (let j = first; j < last; j++) {
        const y = view.top + j * pixel;
        const cover = clamp01(0.5 + (y - here) * sharpness) * clamp01(0.5 + (bottom - y) / pixel);
        if (cover <= 0) continue;
        const [r, g, b] = mixRgb(crest, foot, clamp01((y - here) * depth));
        this.blend(j * width + i, r, g, b, cover);
      }
      previous = here;
      here = next;
    }
  }

  /** The columns i0 to i1 and rows j0 to j1 (exclusive) whose centres lie in a box. */
  #range(view: View, x0: number, x1: number, y0: number, y1: number) {
    const { pixel } = view;
    return {
      i0: Math.max(0, Math.ceil((x0 - view.left) / pixel)),
      i1: Math.min(this.width, Math.floor((x1 - view.left) / pixel) + 1),
      j0: Math.max(0, Math.ceil((y0 - view.top) / pixel)),
      j1: Math.min(this.height, Math.floor((y1 - view.top) / pixel) + 1),
    };
  }
}
