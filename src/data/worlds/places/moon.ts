import { fold, RandomStream } from '../../../random/philox.ts';
import type { Canvas, View } from '../canvas.ts';
import { hex, mixRgb, type Rgb } from '../colour.ts';
import { Noise } from '../noise.ts';
import { parallaxAt } from '../stage.ts';
import { type Backdrop, GroundPainter, nearness, rowAt, type Setting } from './ground.ts';

interface Crater {
  readonly x: number;
  readonly q: number;
  readonly radius: number;
}

/** A planet among the stars over the grey ground of a moon with craters. */
export function moon(setting: Setting): Backdrop {
  const { stage, palette } = setting;
  const noise = new Noise(fold(setting.key, 'noise'));
  const random = new RandomStream(fold(setting.key, 'scatter'));
  const bright = mixRgb(palette.groundFar, [255, 255, 255], 0.45);
  const dark = mixRgb(palette.groundNear, palette.lighting.shadow, 0.65);
  const dust = new GroundPainter(stage, palette, bright, dark);
  const craters: Crater[] = Array.from({ length: Math.round(7 * stage.halfWidth) }, () => ({
    x: random.uniform(-1, 1) * (stage.halfWidth + 0.2),
    q: random.uniform(0.05, 0.98),
    radius: random.uniform(0.05, 0.14),
  })).sort((a, b) => a.q - b.q);
  const planet = { kind: random.int(3), x: random.uniform(0.3, 0.72), y: random.uniform(0.5, 0.72) };
  const hills = (x: number) =>
    stage.horizon - 0.05 - 0.06 * noise.line(1.6 * x + 5.7) - 0.025 * noise.line(4.1 * x + 31.3);
  return {
    draw(canvas, view) {
      const height = stage.horizon + stage.halfHeight;
      const x = -setting.side * planet.x * stage.halfWidth - 0.08 * view.pan;
      drawPlanet(canvas, view, setting, planet.kind, x, stage.horizon - planet.y * height);
      canvas.ridge(view, 0.2, stage.horizon + 0.02, hills, palette.near, palette.far);
      dust.draw(
        canvas,
        view,
        (tx, z) => 0.2 * noise.plane(1.1 * tx, 3 * z) + 0.1 * noise.plane(3.7 * tx, 9 * z),
      );
      for (const crater of craters) {
        const y = rowAt(stage, crater.q);
        const size = crater.radius * (0.35 + 0.65 * nearness(stage, y));
        const at = crater.x - view.pan * parallaxAt(stage, y);
        canvas.ellipse(view, at, y + 0.09 * size, size, 0.36 * size, bright, 0.5, 0.012);
        canvas.ellipse(view, at, y, 0.94 * size, 0.3 * size, dark, 0.6, 0.012);
      }
    },
  };
}

const planets: readonly { readonly body: Rgb; readonly band: Rgb; readonly ring: boolean }[] = [
  { body: hex('#5d7fd0'), band: hex('#a9c6ee'), ring: false },
  { body: hex('#c9a27a'), band: hex('#e6cfa6'), ring: true },
  { body: hex('#6d8f96'), band: hex('#a3c0c0'), ring: false },
];

function drawPlanet(canvas: Canvas, view: View, setting: Setting, kind: number, x: number, y: number): void {
  const planet = planets[kind];
  if (planet === undefined) return;
  const radius = 0.2;
  const { side, palette } = setting;
  const { pixel } = view;
  const tilt = 0.32;
  const reach = radius * (planet.ring ? 1.9 : 1.05) + pixel;
  const i0 = Math.max(0, Math.floor((x - reach - view.left) / pixel));
  const i1 = Math.min(canvas.width, Math.ceil((x + reach - view.left) / pixel) + 1);
  const j0 = Math.max(0, Math.floor((y - reach - view.top) / pixel));
  const j1 = Math.min(canvas.height, Math.ceil((y + reach - view.top) / pixel) + 1);
  for (let j = j0; j < j1; j++) {
    const dy = (view.top + j * pixel - y) / radius;
    for (let i = i0; i < i1; i++) {
      const dx = (view.left + i * pixel - x) / radius;
      const length = Math.sqrt(dx * dx + dy * dy);
      const cover = Math.min(1, Math.max(0, 0.5 + ((1 - length) * radius) / pixel));
      const along = dx + tilt * dy;
      const across = (dy - tilt * dx) * 4.2;
      if (cover > 0) {
        const depth = Math.sqrt(Math.max(0, 1 - Math.min(1, length) ** 2));
        const light = Math.min(1, Math.max(0, 0.12 + 0.75 * side * dx - 0.45 * dy + 0.55 * depth));
        const bands = 0.5 + 0.5 * Math.sin(7 * (dy - tilt * dx) + 1.5 * Math.sin(2 * dx + dy));
        const [r, g, b] = mixRgb(palette.zenith, mixRgb(planet.body, planet.band, 0.55 * bands), light);
        canvas.blend(j * canvas.width + i, r, g, b, cover);
      }
      if (!planet.ring || (across < 0 && length < 1)) continue;
      const ringRadius = Math.sqrt(along * along + across * across);
      const edge = pixel / radius;
      const inRing = Math.min(1, Math.max(0, 0.5 + (0.24 - Math.abs(ringRadius - 1.55)) / (2.5 * edge)));
      if (inRing > 0) canvas.blend(j * canvas.width + i, ...planet.band, 0.75 * inRing);
    }
  }
}
