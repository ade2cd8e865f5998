import { fold, type Key, RandomStream } from '../../random/philox.ts';
import type { Canvas, View } from './canvas.ts';
import { gradient, gradientSteps, mixRgb, type Rgb } from './colour.ts';
import type { Palette } from './palette.ts';
import type { Stage } from './stage.ts';

interface Star {
  readonly x: number;
  readonly y: number;
  readonly radius: number;
  readonly brightness: number;
  readonly twinkle: number;
}

interface Puff {
  readonly x: number;
  readonly y: number;
  readonly radius: number;
}

interface Cloud {
  readonly x: number;
  readonly base: number;
  readonly speed: number;
  readonly puffs: readonly Puff[];
}

/** Clouds and sky bodies take part in pans this much: hardly. */
const skyParallax = 0.12;

/** The sky of a scene: a gradient, sun or moon with its glow, stars, drifting clouds. */
export class Sky {
  readonly #stage: Stage;
  readonly #palette: Palette;
  readonly #table: Float32Array;
  readonly #stars: readonly Star[];
  readonly #clouds: readonly Cloud[];
  readonly #sunX: number;
  readonly #sunY: number;

  /** @param side -1 for a sun or moon on the left, 1 on the right. */
  constructor(stage: Stage, palette: Palette, side: number, key: Key) {
    this.#stage = stage;
    this.#palette = palette;
    this.#table = gradient([
      [0, palette.zenith],
      [0.58, palette.sky],
      [1, palette.skyline],
    ]);
    this.#sunX = side * palette.luminary.side * stage.halfWidth;
    this.#sunY = stage.horizon - palette.luminary.height * (stage.horizon + stage.halfHeight);
    this.#stars = palette.stars > 0 ? makeStars(stage, fold(key, 'stars')) : [];
    this.#clouds = palette.clouds > 0 ? makeClouds(stage, fold(key, 'clouds')) : [];
  }

  /** Where the sun or moon is, in stage units. */
  get sun(): { readonly x: number; readonly y: number } {
    return { x: this.#sunX, y: this.#sunY };
  }

  /** Paints every row down to the horizon. */
  draw(canvas: Canvas, view: View, time: number): void {
    this.#gradient(canvas, view);
    this.#drawStars(canvas, view, time);
    this.#drawLuminary(canvas, view);
    const span = 2 * this.#stage.halfWidth + 2.4;
    for (const cloud of this.#clouds) {
      const drifted = cloud.x + cloud.speed * time + 0.5 * span;
      const x = drifted - span * Math.floor(drifted / span) - 0.5 * span - view.pan * skyParallax;
      drawCloud(canvas, view, cloud, x, this.#palette);
    }
  }

  #gradient(canvas: Canvas, view: View): void {
    const { horizon, halfHeight } = this.#stage;
    const { glow, glowReach, glowStrength } = this.#palette.luminary;
    const { data, width } = canvas;
    const rows = Math.min(canvas.height, Math.ceil((horizon - view.top) / view.pixel) + 1);
    const sunX = this.#sunX - view.pan * skyParallax;
    const perReach = 1 / (glowReach * glowReach);
    for (let j = 0; j < rows; j++) {
      const y = view.top + j * view.pixel;
      const place = Math.min(1, Math.max(0, (y + halfHeight) / (horizon + halfHeight))) * (gradientSteps - 1);
      const step = Math.min(gradientSteps - 2, Math.floor(place));
      const t = place - step;
      const channel = (c: number) => {
        const a = this.#table[3 * step + c] ?? 0;
        return a + ((this.#table[3 * step + 3 + c] ?? 0) - a) * t;
      };
      const r = channel(0);
      const g = channel(1);
      const b = channel(2);
      const dy = y - this.#sunY;
      for (let i = 0; i < width; i++) {
        const dx = view.left + i * view.pixel - sunX;
        const fall = 1 / (1 + 3 * (dx * dx + dy * dy) * perReach);
        const amount = glowStrength * fall * fall;
        const at = 3 * (j * width + i);
        data[at] = r + (glow[0] - r) * amount;
        data[at + 1] = g + (glow[1] - g) * amount;
        data[at + 2] = b + (glow[2] - b) * amount;
      }
    }
  }

  #drawStars(canvas: Canvas, view: View, time: number): void {
    const colour: Rgb = [255, 250, 236];
    for (const star of this.#stars) {
      const shine = 0.82 + 0.18 * Math.sin(2.4 * time + star.twinkle);
      const x = star.x - view.pan * skyParallax;
      canvas.ellipse(
        view,
        x,
        star.y,
        star.radius,
        star.radius,
        colour,
        this.#palette.stars * star.brightness * shine,
      );
    }
  }

  #drawLuminary(canvas: Canvas, view: View): void {
    const { radius, colour } = this.#palette.luminary;
    if (radius <= 0) return;
    const x = this.#sunX - view.pan * skyParallax;
    canvas.ellipse(view, x, this.#sunY, radius, radius, colour, 1, 0.006);
    if (this.#palette.stars > 0) {
      // Two seas make it a moon.
      const grey = mixRgb(colour, this.#palette.sky, 0.22);
      canvas.ellipse(
        view,
        x - 0.3 * radius,
        this.#sunY - 0.15 * radius,
        0.3 * radius,
        0.26 * radius,
        grey,
        0.8,
        0.01,
      );
      canvas.ellipse(
        view,
        x + 0.32 * radius,
        this.#sunY + 0.3 * radius,
        0.22 * radius,
        0.2 * radius,
        grey,
        0.8,
        0.01,
      );
    }
  }
}

function makeStars(stage: Stage, key: Key): Star[] {
  const random = new RandomStream(key);
  const count = Math.round(26 * (stage.halfWidth + 0.3) * stage.halfHeight);
  return Array.from({ length: count }, () => {
    const bright = random.uniform() ** 3;
    return {
      x: random.uniform(-1, 1) * (stage.halfWidth + 0.2),
      y: random.uniform(-stage.halfHeight, stage.horizon - 0.12),
      radius: 0.011 + 0.013 * bright,
      brightness: Math.min(0.8, 0.5 + 0.5 * bright),
      twinkle: random.uniform(0, 2 * Math.PI),
    };
  });
}

function makeClouds(stage: Stage, key: Key): Cloud[] {
  const random = new RandomStream(key);
  const count = Math.max(2, Math.round(2.2 * stage.halfWidth));
  const height = stage.horizon + stage.halfHeight;
  const offset = random.uniform();
  return Array.from({ length: count }, (_, c) => {
    const size = random.uniform(0.7, 1.15);
    const lobes = 3 + random.int(3);
    const puffs = Array.from({ length: lobes }, (_, i) => {
      const across = lobes === 1 ? 0 : (2 * i) / (lobes - 1) - 1;
      const radius = size * (0.075 + 0.085 * (1 - across * across)) * random.uniform(0.85, 1.15);
      return { x: across * size * 0.24, y: -0.55 * radius, radius };
    });
    return {
      x: ((c + offset + random.uniform(-0.2, 0.2)) / count - 0.5) * (2 * stage.halfWidth + 2.4),
      base: -stage.halfHeight + height * random.uniform(0.16, 0.55),
      speed: random.uniform(0.015, 0.04),
      puffs,
    };
  });
}

function drawCloud(canvas: Canvas, view: View, cloud: Cloud, x: number, palette: Palette): void {
  const { pixel } = view;
  const wide = Math.max(...cloud.puffs.map((puff) => Math.abs(puff.x) + puff.radius));
  const high = Math.max(...cloud.puffs.map((puff) => puff.radius - puff.y));
  const soft = Math.max(pixel, 0.03);
  const i0 = Math.max(0, Math.ceil((x - wide - soft - view.left) / pixel));
  const i1 = Math.min(canvas.width, Math.floor((x + wide + soft - view.left) / pixel) + 1);
  const j0 = Math.max(0, Math.ceil((cloud.base - high - soft - view.top) / pixel));
  const j1 = Math.min(canvas.height, Math.floor((cloud.base + soft - view.top) / pixel) + 1);
  for (let j = j0; j < j1; j++) {
    const y = view.top + j * pixel - cloud.base;
    const shade = Math.min(1, Math.max(0, 1 + (1.15 * y) / high));
    const [r, g, b] = mixRgb(palette.cloud, palette.cloudShade, shade);
    const flat = Math.min(1, Math.max(0, 0.5 - y / soft));
    for (let i = i0; i < i1; i++) {
      const dx = view.left + i * pixel - x;
      let distance = 1;
      for (const puff of cloud.puffs) {
        const d = Math.sqrt((dx - puff.x) ** 2 + (y - puff.y) ** 2) - puff.radius;
        if (d < distance) distance = d;
      }
      const cover = Math.min(1, Math.max(0, 0.5 - distance / soft)) * flat;
      if (cover > 0) canvas.blend(j * canvas.width + i, r, g, b, cover * 0.92 * palette.clouds);
    }
  }
}
