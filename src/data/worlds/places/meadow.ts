import { fold, RandomStream } from '../../../random/philox.ts';
import type { Canvas, View } from '../canvas.ts';
import { mixRgb, type Rgb } from '../colour.ts';
import { Noise } from '../noise.ts';
import { parallaxAt } from '../stage.ts';
import { type Backdrop, detail, GroundPainter, rowAt, type Setting } from './ground.ts';

interface Tuft {
  readonly x: number;
  readonly q: number;
  readonly lean: number;
  readonly flower: Rgb | undefined;
}

interface Tree {
  readonly x: number;
  readonly size: number;
}

/** Rolling hills with a few round trees, and a meadow with tufts of grass and small flowers. */
export function meadow(setting: Setting): Backdrop {
  const { stage, palette, side } = setting;
  const noise = new Noise(fold(setting.key, 'noise'));
  const random = new RandomStream(fold(setting.key, 'scatter'));
  const lit = mixRgb(palette.groundFar, palette.lighting.light, 0.25);
  const shaded = mixRgb(palette.groundNear, palette.lighting.shadow, 0.5);
  const ground = new GroundPainter(stage, palette, lit, shaded);
  const haze = mixRgb(palette.near, palette.skyline, 0.25);
  const leaf = mixRgb(palette.near, palette.lighting.shadow, 0.32);
  const crown = mixRgb(palette.near, palette.lighting.light, 0.12);
  const tufts = scatterTufts(setting, random);
  const trees: Tree[] = Array.from({ length: 3 + random.int(3) }, () => ({
    x: random.uniform(-1, 1) * (stage.halfWidth + 0.2),
    size: random.uniform(0.045, 0.075),
  }));
  const farRidge = (x: number) =>
    stage.horizon - 0.2 - 0.11 * noise.line(1.1 * x + 7.3) - 0.05 * noise.line(2.7 * x);
  const nearRidge = (x: number) => stage.horizon - 0.07 - 0.055 * noise.line(1.3 * x + 91.7);
  return {
    draw(canvas, view, time) {
      canvas.ridge(
        view,
        0.16,
        stage.horizon + 0.02,
        farRidge,
        palette.far,
        mixRgb(palette.far, palette.skyline, 0.4),
      );
      canvas.ridge(view, 0.22, stage.horizon + 0.02, nearRidge, palette.near, haze);
      for (const { x, size } of trees) {
        const at = x - view.pan * 0.22;
        const foot = nearRidge(x) + 0.012;
        canvas.stroke(view, at, foot, at, foot - size, 0.016, 0.014, leaf, 1);
        canvas.ellipse(view, at, foot - 1.6 * size, size, 1.12 * size, leaf, 1, 0.006);
        canvas.ellipse(
          view,
          at + 0.22 * side * size,
          foot - 1.85 * size,
          0.66 * size,
          0.7 * size,
          crown,
          0.75,
          0.015,
        );
      }
      const fine = detail(view, 0.06);
      ground.draw(canvas, view, (x, z, q) => {
        const patches = 0.2 * noise.plane(0.9 * x, 3.2 * z);
        const blades = 0.09 * fine * noise.plane(7 * x, 21 * z);
        return patches + blades * (0.3 + 0.7 * q) + 0.1 - 0.1 * q;
      });
      for (const tuft of tufts) drawTuft(canvas, view, setting, tuft, time);
    },
  };
}

function scatterTufts({ stage, palette }: Setting, random: RandomStream): Tuft[] {
  const count = Math.round(22 * stage.halfWidth);
  const petals: Rgb[] = [palette.accent, palette.accent, mixRgb(palette.accent, [255, 214, 90], 0.6)];
  return Array.from({ length: count }, () => ({
    x: random.uniform(-1, 1) * (stage.halfWidth + 0.25),
    q: 0.06 + 0.94 * random.uniform() ** 0.8,
    lean: random.uniform(-0.5, 0.5),
    flower: random.uniform() < 0.45 ? random.pick(petals) : undefined,
  })).sort((a, b) => a.q - b.q);
}

function drawTuft(canvas: Canvas, view: View, setting: Setting, tuft: Tuft, time: number): void {
  const { stage, palette } = setting;
  const y = rowAt(stage, tuft.q);
  const x = tuft.x - view.pan * parallaxAt(stage, y);
  const size = 0.03 + 0.055 * tuft.q;
  const sway = tuft.lean + 0.18 * Math.sin(1.7 * time + 5 * tuft.x);
  if (tuft.flower !== undefined) {
    const top = y - 0.8 * size;
    canvas.stroke(view, x, y, x + 0.3 * sway * size, top, 0.1 * size, 0.1 * size, palette.groundNear, 0.7);
    canvas.ellipse(view, x + 0.3 * sway * size, top, 0.26 * size, 0.22 * size, tuft.flower, 0.9);
    return;
  }
  const blade = mixRgb(palette.groundNear, palette.lighting.shadow, 0.28);
  const bright = mixRgb(palette.groundNear, palette.groundFar, 0.75);
  for (let i = -1; i <= 1; i++) {
    const tip = x + (0.55 * i + 0.5 * sway) * size;
    const high = y - (i === 0 ? 1.25 : 0.9) * size;
    canvas.stroke(
      view,
      x + 0.22 * i * size,
      y,
      tip,
      high,
      0.22 * size,
      0.04 * size,
      i === 0 ? bright : blade,
      0.85,
    );
  }
}
