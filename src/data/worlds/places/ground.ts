import type { Key } from '../../../random/philox.ts';
import type { Canvas, View } from '../canvas.ts';
import { gradient, gradientSteps, type Rgb } from '../colour.ts';
import type { Palette } from '../palette.ts';
import type { Time, Weather } from '../scene.ts';
import { parallaxAt, type Stage } from '../stage.ts';

/** What a place is painted from. */
export interface Setting {
  readonly stage: Stage;
  readonly palette: Palette;
  readonly time: Time;
  readonly weather: Weather;
  /** -1 when the light comes from the left, 1 from the right. */
  readonly side: number;
  /** Stage x of the sun or moon. */
  readonly sunX: number;
  /** Randomness of everything that is scattered about. */
  readonly key: Key;
}

/** What lies below and on the horizon. Paints every pixel from the horizon down, over a sky that is already there. */
export interface Backdrop {
  draw(canvas: Canvas, view: View, time: number): void;
}

/**
 * The texture of a ground at a point: from -1 (shaded) to 1 (bright).
 *
 * @param x across, in units that grow with distance, as on a plane seen from above it.
 * @param z away: about 0.85 in front to 5.5 at the horizon.
 * @param q 0 at the horizon to 1 at the lower edge of the frame.
 * @param stageX the same point's x on the stage.
 */
export type GroundTexture = (x: number, z: number, q: number, stageX: number) => number;

/** 0 at the horizon to 1 at the lower edge of the frame. */
export function nearness(stage: Stage, y: number): number {
  return (y - stage.horizon) / (stage.halfHeight - stage.horizon);
}

/** Stage y of a nearness. */
export function rowAt(stage: Stage, q: number): number {
  return stage.horizon + q * (stage.halfHeight - stage.horizon);
}

/** Paints a ground plane: two palette colours from horizon to front, lit and shaded by a texture. */
export class GroundPainter {
  readonly #stage: Stage;
  readonly #table: Float32Array;
  readonly #bright: Rgb;
  readonly #dark: Rgb;

  constructor(stage: Stage, palette: Pick<Palette, 'groundFar' | 'groundNear'>, bright: Rgb, dark: Rgb) {
    this.#stage = stage;
    this.#bright = bright;
    this.#dark = dark;
    this.#table = gradient([
      [0, palette.groundFar],
      [0.8, palette.groundNear],
      [1, palette.groundNear],
    ]);
  }

  /** Paints from the horizon down. */
  draw(canvas: Canvas, view: View, texture: GroundTexture): void {
    const stage = this.#stage;
    const { data, width, height } = canvas;
    const from = Math.max(0, Math.floor((stage.horizon - view.top) / view.pixel - 0.5));
    for (let j = from; j < height; j++) {
      const y = view.top + j * view.pixel;
      const cover = Math.min(1, Math.max(0, 0.5 + (y - stage.horizon) / view.pixel));
      if (cover <= 0) continue;
      const q = Math.min(1, Math.max(0, nearness(stage, y)));
      const z = 1 / (q + 0.18);
      const step = 3 * Math.round(q * (gradientSteps - 1));
      const r = this.#table[step] ?? 0;
      const g = this.#table[step + 1] ?? 0;
      const b = this.#table[step + 2] ?? 0;
      const shift = view.left + view.pan * parallaxAt(stage, y);
      for (let i = 0; i < width; i++) {
        const x = shift + i * view.pixel;
        const value = texture(x * z, z, q, x);
        const aim = value > 0 ? this.#bright : this.#dark;
        const amount = value > 0 ? value : -value;
        const at = 3 * (j * width + i);
        const r0 = data[at] ?? 0;
        const g0 = data[at + 1] ?? 0;
        const b0 = data[at + 2] ?? 0;
        data[at] = r0 + (r + (aim[0] - r) * amount - r0) * cover;
        data[at + 1] = g0 + (g + (aim[1] - g) * amount - g0) * cover;
        data[at + 2] = b0 + (b + (aim[2] - b) * amount - b0) * cover;
      }
    }
  }
}

/** How much of a texture of a given wavelength (stage units) a pixel can show, 0 to 1: fine detail fades out, it never flickers. */
export function detail(view: View, wavelength: number): number {
  return Math.min(1, Math.max(0, wavelength / view.pixel - 1));
}
