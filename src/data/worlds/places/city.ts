import { fold, RandomStream } from '../../../random/philox.ts';
import type { Canvas, View } from '../canvas.ts';
import { mixRgb, type Rgb } from '../colour.ts';
import { Noise } from '../noise.ts';
import { parallaxAt, type Stage } from '../stage.ts';
import { type Backdrop, GroundPainter, rowAt, type Setting } from './ground.ts';

interface House {
  readonly x: number;
  readonly width: number;
  readonly height: number;
  /** Which windows are lit, row by row. */
  readonly lit: readonly boolean[];
  readonly columns: number;
}

const storey = 0.085;

/** Two rows of houses with windows, a pavement, and a road with a dashed line. */
export function city(setting: Setting): Backdrop {
  const { stage, palette, time } = setting;
  const noise = new Noise(fold(setting.key, 'noise'));
  const white: Rgb = [255, 255, 255];
  const road = new GroundPainter(
    stage,
    palette,
    mixRgb(palette.groundFar, white, 0.4),
    mixRgb(palette.groundNear, palette.lighting.shadow, 0.6),
  );
  const behind = houses(stage, fold(setting.key, 'far'), 0.34, 0.74);
  const front = houses(stage, fold(setting.key, 'near'), 0.16, 0.46);
  const paint = mixRgb(palette.groundFar, white, 0.45);
  const kerb = mixRgb(palette.groundNear, palette.lighting.shadow, 0.35);
  const unlit = mixRgb(palette.near, time === 'day' || time === 'dawn' ? palette.sky : palette.far, 0.45);
  const glow = time === 'night' ? 0.95 : time === 'sunset' ? 0.85 : 0.4;
  return {
    draw(canvas, view) {
      const hazy = mixRgb(palette.far, palette.skyline, 0.3);
      for (const house of behind)
        drawHouse(canvas, view, stage, house, 0.15, palette.far, hazy, palette.accent, 0.35 * glow);
      const foot = mixRgb(palette.near, palette.groundFar, 0.25);
      for (const house of front) {
        drawHouse(canvas, view, stage, house, 0.22, palette.near, foot, palette.accent, glow, unlit);
      }
      road.draw(canvas, view, (x, z, q) => {
        const worn = 0.1 * noise.plane(0.8 * x, 2.4 * z);
        return q < 0.17 ? 0.35 + worn : worn;
      });
      drawKerb(canvas, view, stage, kerb, paint);
      drawDashes(canvas, view, stage, paint);
    },
  };
}

function drawKerb(canvas: Canvas, view: View, stage: Stage, dark: Rgb, light: Rgb): void {
  const y = rowAt(stage, 0.17);
  const wide = 2 * stage.halfWidth + 2;
  canvas.rectangle(view, -wide, y - 0.014, wide, y, light, 0.6);
  canvas.rectangle(view, -wide, y, wide, y + 0.028, dark, 0.7);
}

function drawDashes(canvas: Canvas, view: View, stage: Stage, paint: Rgb): void {
  const y = rowAt(stage, 0.52);
  const shift = view.pan * parallaxAt(stage, y);
  const spacing = 0.62;
  const count = Math.ceil((stage.halfWidth + 0.8) / spacing);
  for (let i = -count; i <= count; i++) {
    const x = i * spacing - shift;
    canvas.rectangle(view, x - 0.17, y - 0.02, x + 0.17, y + 0.02, paint, 0.75);
  }
}

function houses(stage: Stage, key: Parameters<typeof fold>[0], low: number, high: number): House[] {
  const random = new RandomStream(key);
  const row: House[] = [];
  const tall = 0.75 + 0.25 * stage.halfHeight;
  for (let x = -stage.halfWidth - 0.4; x < stage.halfWidth + 0.4; ) {
    const width = random.uniform(0.2, 0.36);
    const height = tall * random.uniform(low, high);
    const columns = Math.max(2, Math.floor(width / 0.085));
    const rows = Math.floor(height / storey);
    const lit = Array.from({ length: columns * rows }, () => random.uniform() < 0.45);
    row.push({ x, width, height, lit, columns });
    x += width + (random.uniform() < 0.25 ? random.uniform(0.02, 0.1) : 0);
  }
  return row;
}

function drawHouse(
  canvas: Canvas,
  view: View,
  stage: Stage,
  house: House,
  parallax: number,
  wall: Rgb,
  foot: Rgb,
  light: Rgb,
  glow: number,
  unlit?: Rgb,
): void {
  const x = house.x - view.pan * parallax;
  const top = stage.horizon - house.height;
  // Walls fade towards the street in a few bands.
  const bands = 4;
  for (let i = 0; i < bands; i++) {
    const y0 = top + (house.height * i) / bands;
    const y1 = top + (house.height * (i + 1)) / bands + (i + 1 === bands ? 0.03 : 0);
    canvas.rectangle(view, x, y0, x + house.width, y1, mixRgb(wall, foot, i / (bands - 1)));
  }
  const step = house.width / house.columns;
  for (const [i, on] of house.lit.entries()) {
    if (!on && unlit === undefined) continue;
    const wx = x + (i % house.columns) * step + 0.27 * step;
    const wy = top + Math.floor(i / house.columns) * storey + 0.035;
    canvas.rectangle(
      view,
      wx,
      wy,
      wx + 0.46 * step,
      wy + 0.042,
      on ? light : (unlit ?? light),
      on ? glow : 0.7,
    );
  }
}
