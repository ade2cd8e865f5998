import { fold, RandomStream } from '../../../random/philox.ts';
import type { Canvas, View } from '../canvas.ts';
import { mixRgb } from '../colour.ts';
import { Noise } from '../noise.ts';
import { parallaxAt } from '../stage.ts';
import { type Backdrop, GroundPainter, rowAt, type Setting } from './ground.ts';

interface Cactus {
  readonly x: number;
  readonly q: number;
  readonly size: number;
  readonly arms: number;
}

/** Table mountains, dunes with sharp crests, rippled sand and a cactus or two at the back. */
export function desert(setting: Setting): Backdrop {
  const { stage, palette, side } = setting;
  const noise = new Noise(fold(setting.key, 'noise'));
  const random = new RandomStream(fold(setting.key, 'scatter'));
  const bright = mixRgb(palette.groundFar, palette.lighting.light, 0.4);
  const dark = mixRgb(palette.groundNear, palette.lighting.shadow, 0.6);
  const sand = new GroundPainter(stage, palette, bright, dark);
  const cacti: Cactus[] = Array.from({ length: 1 + random.int(3) }, (_, i) => ({
    x: random.uniform(0.35, 1) * (i % 2 === 0 ? -1 : 1) * stage.halfWidth,
    q: random.uniform(0.02, 0.12),
    size: random.uniform(0.1, 0.15),
    arms: 1 + random.int(2),
  }));
  const mesas = (x: number) => {
    const level = Math.min(1, Math.max(0, 3.2 * (noise.line(1.25 * x + 11.3) + 0.05)));
    return stage.horizon - 0.03 - 0.2 * level - 0.018 * noise.line(6 * x);
  };
  const dunes = (x: number) => {
    // Folded noise has crests like wind-blown sand.
    const fold1 = 1 - Math.abs(noise.line(1.15 * x + 71.7));
    return stage.horizon - 0.015 - 0.13 * fold1 * fold1;
  };
  return {
    draw(canvas, view) {
      const haze = mixRgb(palette.far, palette.skyline, 0.45);
      canvas.ridge(view, 0.15, stage.horizon + 0.02, mesas, palette.far, haze);
      canvas.ridge(
        view,
        0.22,
        stage.horizon + 0.02,
        dunes,
        palette.near,
        mixRgb(palette.near, palette.groundFar, 0.7),
      );
      sand.draw(canvas, view, (x, z, q) => {
        const drift = noise.plane(0.5 * x, 1.6 * z);
        const bend = 2.2 * noise.plane(0.7 * x, 1.1 * z);
        const ripple = Math.sin(13 * z + 0.6 * side * x + bend);
        return 0.2 * drift + 0.13 * q * ripple * Math.max(0, 0.6 + drift);
      });
      for (const cactus of cacti) drawCactus(canvas, view, setting, cactus);
    },
  };
}

function drawCactus(canvas: Canvas, view: View, { stage, palette, side }: Setting, cactus: Cactus): void {
  const { size, arms } = cactus;
  const y = rowAt(stage, cactus.q);
  const x = cactus.x - view.pan * parallaxAt(stage, y);
  const thick = 0.3 * size;
  const green = palette.accent;
  const lit = mixRgb(green, palette.lighting.light, 0.25);
  canvas.ellipse(
    view,
    x - 0.5 * side * size,
    y,
    0.6 * size,
    0.07 * size,
    palette.lighting.shadow,
    0.35,
    0.01,
  );
  canvas.stroke(view, x, y - 0.2 * thick, x, y - size, thick, 0.9 * thick, green, 1);
  for (let i = 0; i < arms; i++) {
    const way = i === 0 ? 1 : -1;
    const low = y - (0.42 + 0.14 * i) * size;
    const out = x + way * 0.42 * size;
    canvas.stroke(view, x, low, out, low, 0.6 * thick, 0.6 * thick, green, 1);
    canvas.stroke(view, out, low, out, low - 0.32 * size, 0.6 * thick, 0.55 * thick, green, 1);
  }
  canvas.stroke(
    view,
    x + 0.2 * side * thick,
    y - 0.2 * size,
    x + 0.2 * side * thick,
    y - size,
    0.2 * thick,
    0.2 * thick,
    lit,
    0.6,
  );
}
