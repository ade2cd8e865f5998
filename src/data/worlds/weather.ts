import { type Key, RandomStream } from '../../random/philox.ts';
import type { Canvas, View } from './canvas.ts';
import { hex } from './colour.ts';
import { wrap } from './numeric.ts';
import type { Time, Weather } from './scene.ts';
import type { Stage } from './stage.ts';

interface Drop {
  readonly x: number;
  readonly y: number;
  /** 0 far to 1 near: larger, faster and stronger. */
  readonly near: number;
  readonly phase: number;
}

const rainColour = hex('#e4eefa');
const snowColour = hex('#ffffff');
const wind = -0.22;

/** Rain or snow in front of a scene; falls in a loop that no one notices, so any duration works. */
export class Precipitation {
  readonly #weather: Weather;
  readonly #stage: Stage;
  readonly #drops: readonly Drop[];
  readonly #strength: number;

  constructor(weather: Weather, time: Time, stage: Stage, key: Key) {
    this.#weather = weather;
    this.#stage = stage;
    const random = new RandomStream(key);
    const area = (stage.halfWidth + 0.3) * (stage.halfHeight + 0.3);
    const count = weather === 'clear' ? 0 : Math.round((weather === 'rain' ? 48 : 54) * area);
    this.#strength = time === 'night' ? 0.8 : 1;
    this.#drops = Array.from({ length: count }, () => ({
      x: random.uniform(-1, 1),
      y: random.uniform(0, 1),
      near: random.uniform() ** 1.5,
      phase: random.uniform(0, 2 * Math.PI),
    }));
  }

  /** Paints over everything. */
  draw(canvas: Canvas, view: View, time: number): void {
    const { halfWidth, halfHeight } = this.#stage;
    const wide = halfWidth + 0.3;
    const high = 2 * halfHeight + 0.5;
    for (const drop of this.#drops) {
      const { near } = drop;
      if (this.#weather === 'rain') {
        const fallen = wrap(drop.y * high + time * (3.2 + 1.8 * near), high);
        const x = wrap(drop.x * wide + wide + wind * fallen, 2 * wide) - wide - 0.3 * view.pan * near;
        const y = fallen - halfHeight - 0.25;
        const length = 0.11 + 0.12 * near;
        const thick = 0.009 + 0.009 * near;
        canvas.stroke(
          view,
          x - wind * length,
          y - length,
          x,
          y,
          thick,
          thick,
          rainColour,
          this.#strength * (0.32 + 0.3 * near),
        );
      } else {
        const fallen = wrap(drop.y * high + time * (0.3 + 0.3 * near), high);
        const sway = 0.06 * Math.sin(1.6 * time + drop.phase);
        const x = wrap(drop.x * wide + wide + sway + 0.06 * time, 2 * wide) - wide - 0.3 * view.pan * near;
        const radius = 0.016 + 0.02 * near;
        canvas.ellipse(
          view,
          x,
          fallen - halfHeight - 0.25,
          radius,
          radius,
          snowColour,
          this.#strength * (0.6 + 0.35 * near),
          0.006,
        );
      }
    }
  }
}
