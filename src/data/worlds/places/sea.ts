import { fold } from '../../../random/philox.ts';
import { mixRgb } from '../colour.ts';
import { Noise } from '../noise.ts';
import { type Backdrop, GroundPainter, type Setting } from './ground.ts';

/** Islands on the horizon, and water with waves that drift and the light of the sun or moon on it. */
export function sea(setting: Setting): Backdrop {
  const { stage, palette, sunX } = setting;
  const noise = new Noise(fold(setting.key, 'noise'));
  const trough = mixRgb(palette.groundNear, palette.lighting.shadow, 0.45);
  const water = new GroundPainter(stage, palette, palette.accent, trough);
  const haze = mixRgb(palette.far, palette.skyline, 0.35);
  const islands = (x: number) => stage.horizon + 0.02 - 0.16 * Math.max(0, noise.line(0.9 * x + 3.1) - 0.1);
  const headland = (x: number) =>
    stage.horizon + 0.012 - 0.1 * Math.max(0, noise.line(1.4 * x + 57.9) - 0.35);
  const glitter = 0.75 * palette.luminary.glowStrength;
  return {
    draw(canvas, view, time) {
      canvas.ridge(view, 0.14, stage.horizon + 0.01, islands, palette.far, haze);
      canvas.ridge(
        view,
        0.2,
        stage.horizon + 0.01,
        headland,
        palette.near,
        mixRgb(palette.near, palette.far, 0.5),
      );
      const shine = sunX - 0.12 * view.pan;
      water.draw(canvas, view, (x, z, q, stageX) => {
        const swell = noise.plane(1.1 * x + 0.35 * time, 5.5 * z + 0.7 * time);
        const ripples = noise.plane(3.1 * x - 0.5 * time, 13 * z + 1.3 * time);
        const wave = 0.62 * swell + 0.38 * ripples;
        const crest = Math.max(0, wave - 0.16) * (0.35 + 0.5 * q);
        const dip = Math.min(0, wave + 0.1) * (0.25 + 0.25 * q);
        const away = (stageX - shine) / (0.1 + 0.32 * q);
        const path = glitter / (1 + away * away * away * away);
        return crest + dip + path * Math.max(0, 0.25 + 0.9 * ripples + 0.3 * swell);
      });
    },
  };
}
