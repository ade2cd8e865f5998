import type { Canvas, View } from './canvas.ts';
import { mixRgb, multiplyRgb, type Rgb } from './colour.ts';
import type { ObjectState } from './motion.ts';
import { clamp01 } from './numeric.ts';
import { objectColours, type Palette } from './palette.ts';
import type { SceneObject } from './scene.ts';
import { geometries, type Normal, type ShapeGeometry } from './shapes.ts';

/** Shadows are this much shorter along the ground than what casts them is high. */
const shadowSquash = 0.27;
const stripeShare = 0.4;

/** One object ready to be painted: its geometry and its colours in the light of the scene. */
export class Sprite {
  readonly #geometry: ShapeGeometry;
  readonly #object: SceneObject;
  readonly #palette: Palette;
  readonly #side: number;
  readonly #base: Rgb;
  readonly #stripe: Rgb;
  readonly #ambient: Rgb;
  readonly #mirroredSky: Rgb;
  readonly #mirroredGround: Rgb;
  readonly #light: readonly [number, number, number];
  readonly #normal: Normal = { x: 0, y: 0, z: 1 };
  readonly #colour = new Float64Array(3);

  /** @param side -1 when the light comes from the left, 1 from the right. */
  constructor(object: SceneObject, palette: Palette, side: number) {
    this.#object = object;
    this.#geometry = geometries[object.shape];
    this.#palette = palette;
    this.#side = side;
    this.#base = objectColours[object.colour];
    this.#stripe = stripeColour(object);
    // In the shade orange turns brown and yellow olive unless they keep more light than other colours.
    const keeps = object.colour === 'orange' || object.colour === 'yellow' ? 0.35 : 0;
    this.#ambient = mixRgb(palette.lighting.ambient, palette.lighting.light, keeps);
    // What black mirrors is all one sees of it: without this it would be called blue under a blue sky.
    const grey = object.colour === 'black' ? 0.8 : 0;
    this.#mirroredSky = towardsGrey(mixRgb(palette.sky, palette.skyline, 0.5), grey);
    this.#mirroredGround = towardsGrey(mixRgb([0, 0, 0], palette.groundNear, 0.5), grey);
    const [x, y, z] = palette.lighting.direction;
    const length = Math.sqrt(x * x + y * y + z * z);
    this.#light = [(side * x) / length, y / length, z / length];
  }

  /** Paints the object where `state` has it, `shiftX` to the right of it (parallax). */
  draw(canvas: Canvas, view: View, state: ObjectState, shiftX: number): void {
    this.#forEachPixel(canvas, view, state, shiftX, (index, u, v, w, cover) => {
      this.#shade(u, v, w, state);
      const colour = this.#colour;
      canvas.blend(index, colour[0] ?? 0, colour[1] ?? 0, colour[2] ?? 0, cover);
    });
  }

  /** Adds how much of each pixel the object covers, 0 to 1, into `out`, shape [height, width]. */
  cover(canvas: Canvas, view: View, state: ObjectState, shiftX: number, out: Float32Array): void {
    this.#forEachPixel(canvas, view, state, shiftX, (index, _u, _v, _w, cover) => {
      out[index] = cover;
    });
  }

  #forEachPixel(
    canvas: Canvas,
    view: View,
    state: ObjectState,
    shiftX: number,
    visit: (index: number, u: number, v: number, w: number, cover: number) => void,
  ): void {
    if (state.opacity <= 0) return;
    const { pixel } = view;
    const geometry = this.#geometry;
    const x = state.x + shiftX;
    const reachX = geometry.reach * state.radius * state.scaleX + pixel;
    const reachY = geometry.reach * state.radius * state.scaleY + pixel;
    const i0 = Math.max(0, Math.ceil((x - reachX - view.left) / pixel));
    const i1 = Math.min(canvas.width, Math.floor((x + reachX - view.left) / pixel) + 1);
    const j0 = Math.max(0, Math.ceil((state.y - reachY - view.top) / pixel));
    const j1 = Math.min(canvas.height, Math.floor((state.y + reachY - view.top) / pixel) + 1);
    const cos = Math.cos(state.angle);
    const sin = Math.sin(state.angle);
    const perX = 1 / (state.radius * state.scaleX);
    const perY = 1 / (state.radius * state.scaleY);
    const w = pixel / state.radius;
    const perPixel = (state.radius * Math.sqrt(state.scaleX * state.scaleY)) / pixel;
    for (let j = j0; j < j1; j++) {
      const dy = (view.top + j * pixel - state.y) * perY;
      for (let i = i0; i < i1; i++) {
        const dx = (view.left + i * pixel - x) * perX;
        const u = cos * dx + sin * dy;
        const v = cos * dy - sin * dx;
        const cover = clamp01(0.5 - geometry.distance(u, v) * perPixel);
        if (cover > 0) visit(j * canvas.width + i, u, v, w, cover * state.opacity);
      }
    }
  }

  /** The colour of the surface at (u, v), into `#colour`. */
  #shade(u: number, v: number, w: number, state: ObjectState): void {
    const { lighting, groundNear } = this.#palette;
    const { light } = lighting;
    const ambient = this.#ambient;
    const normal = this.#normal;
    this.#geometry.normal(u, v, w, normal);
    // From the object's axes to the frame's.
    const cos = Math.cos(state.angle);
    const sin = Math.sin(state.angle);
    const nx = cos * normal.x - sin * normal.y;
    const ny = sin * normal.x + cos * normal.y;
    const nz = normal.z;
    const [lx, ly, lz] = this.#light;
    const { finish } = this.#object;
    const shiny = finish === 'shiny';
    const lit = clamp01(0.24 + 0.93 * (nx * lx + ny * ly + nz * lz));
    const stripe = finish === 'striped' ? this.#stripeCover(u, v, w) : 0;
    const edge = (1 - nz) * (1 - nz);
    const bounce = 0.16 * clamp01(ny);
    const rim = lighting.rim * edge * clamp01(0.35 - 0.9 * ny + 0.3 * nx * this.#side);
    // Highlights of flat faces travel over them, as on something slightly rounded.
    const hx = nx + 0.3 * (cos * u - sin * v);
    const hy = ny + 0.3 * (sin * u + cos * v);
    const bend = 0.3 * 0.3 * (u * u + v * v) + 2 * (nx * (hx - nx) + ny * (hy - ny));
    const hl = 1 / Math.sqrt(Math.max(0.25, 1 + bend));
    // Halfway between the light and the viewer.
    const half = 1 / Math.sqrt(2 + 2 * lz);
    const glance = clamp01((hx * lx + hy * ly + nz * (lz + 1)) * hl * half);
    const g2 = glance * glance;
    const g8 = g2 * g2 * g2 * g2;
    const spark = shiny ? clamp01(2.2 * (g8 * g8 * g8 - 0.3)) : 0.07 * g8;
    // What a glossy surface mirrors: sky above, ground below, a bright line between.
    const mirrorY = 2 * nz * hy * hl;
    const mirror = shiny ? 0.1 + 0.38 * edge : 0;
    const upward = clamp01(0.5 - 2.2 * mirrorY);
    const colour = this.#colour;
    for (let c = 0; c < 3; c++) {
      const base = this.#base[c] ?? 0;
      const surface = base + ((this.#stripe[c] ?? 0) - base) * stripe;
      const a = ambient[c] ?? 0;
      const l = light[c] ?? 0;
      let value = (surface * (a + (l - a) * lit)) / 255;
      value += bounce * ((groundNear[c] ?? 0) - value) * 0.8;
      const below = this.#mirroredGround[c] ?? 0;
      const seen = below + upward * ((this.#mirroredSky[c] ?? 0) - below);
      // A dark sky must not drown the colour.
      value += mirror * Math.max(seen - value, -0.2 * value);
      value += rim * (255 - value) * 0.75;
      value += spark * (255 - value);
      colour[c] = value;
    }
  }

  #stripeCover(u: number, v: number, w: number): number {
    const geometry = this.#geometry;
    const s = geometry.stripe(u, v);
    // The stripes' own rate of change, so that their edges are one pixel wide on any shape.
    const rate = Math.min(
      0.5,
      w *
        0.5 *
        (Math.abs(geometry.stripe(u + 0.01, v) - s) + Math.abs(geometry.stripe(u, v + 0.01) - s)) *
        100,
    );
    const cycle = s - Math.floor(s);
    const inside = 0.5 * stripeShare - Math.abs(cycle - 0.5);
    return clamp01(0.5 + inside / Math.max(rate, 1e-3));
  }

  /** Paints the shadow on the ground, sharp where the object stands and softer the higher it flies. */
  drawShadow(canvas: Canvas, view: View, state: ObjectState, shiftX: number): void {
    const geometry = this.#geometry;
    const { lighting } = this.#palette;
    const { pixel } = view;
    const radiusX = state.radius * state.scaleX;
    const radiusY = state.radius * state.scaleY;
    const turned = Math.abs(state.angle) > 1e-6 && geometry.base !== geometry.reach;
    const base = turned ? geometry.reach : geometry.base;
    const lift = Math.max(0, state.ground - state.y - base * radiusY);
    const slant = -this.#side * lighting.shadowSlant;
    const strength = (lighting.shadowStrength * state.opacity) / (1 + 1.1 * lift);
    const x = state.x + shiftX + 0.3 * slant * lift;
    const y = state.ground + 0.1 * lift - 0.02;
    const soft = (0.05 + 0.16 * lift) / Math.max(0.1, state.radius);
    const [r, g, b] = lighting.shadow;
    // Contact: a small dark ellipse where light does not reach.
    if (lift < 0.25) {
      const near = (1 - lift / 0.25) ** 2;
      const foot = geometry.foot * radiusX;
      canvas.ellipse(
        view,
        x,
        state.ground - 0.012,
        1.05 * foot,
        0.22 * foot + 0.012,
        lighting.shadow,
        0.85 * lighting.shadowStrength * near * state.opacity,
        0.035,
      );
    }
    const high = 2 * base * radiusY;
    const margin = soft * state.radius;
    const y0 = y - margin * shadowSquash;
    const y1 = y + (high + margin) * shadowSquash;
    const lean = slant * high;
    const reach = geometry.reach * radiusX + margin;
    const j0 = Math.max(0, Math.ceil((y0 - view.top) / pixel));
    const j1 = Math.min(canvas.height, Math.floor((y1 - view.top) / pixel) + 1);
    const i0 = Math.max(0, Math.ceil((x - reach + Math.min(0, lean) - view.left) / pixel));
    const i1 = Math.min(canvas.width, Math.floor((x + reach + Math.max(0, lean) - view.left) / pixel) + 1);
    const cos = Math.cos(state.angle);
    const sin = Math.sin(state.angle);
    const perSoft = 0.5 / (soft + (1.5 * pixel) / state.radius);
    for (let j = j0; j < j1; j++) {
      const above = (view.top + j * pixel - y) / shadowSquash;
      const dv = base - above / radiusY;
      const fade = strength * (1 - 0.45 * clamp01(above / high));
      for (let i = i0; i < i1; i++) {
        const du = (view.left + i * pixel - x - slant * above) / radiusX;
        const distance = geometry.distance(cos * du + sin * dv, cos * dv - sin * du);
        const t = clamp01(0.5 - distance * perSoft);
        if (t > 0) canvas.blend(j * canvas.width + i, r, g, b, t * t * (3 - 2 * t) * fade);
      }
    }
  }

  /** Paints the mirror image on water: upside down below the waterline, broken by ripples. */
  drawReflection(
    canvas: Canvas,
    view: View,
    state: ObjectState,
    shiftX: number,
    strength: number,
    time: number,
  ): void {
    const geometry = this.#geometry;
    const { pixel } = view;
    const x = state.x + shiftX;
    const middle = 2 * state.ground - state.y;
    const reachX = geometry.reach * state.radius * state.scaleX + pixel + 0.03;
    const reachY = geometry.reach * state.radius * state.scaleY + pixel;
    const i0 = Math.max(0, Math.ceil((x - reachX - view.left) / pixel));
    const i1 = Math.min(canvas.width, Math.floor((x + reachX - view.left) / pixel) + 1);
    const j0 = Math.max(0, Math.ceil((Math.max(state.ground, middle - reachY) - view.top) / pixel));
    const j1 = Math.min(canvas.height, Math.floor((middle + reachY - view.top) / pixel) + 1);
    const cos = Math.cos(state.angle);
    const sin = Math.sin(state.angle);
    const w = pixel / state.radius;
    for (let j = j0; j < j1; j++) {
      const y = view.top + j * pixel;
      const away = y - state.ground;
      const dy = (middle - y) / (state.radius * state.scaleY);
      const wobble = (0.008 + 0.03 * away) * Math.sin(34 * y + 5 * time + 2 * Math.sin(13 * y - 3 * time));
      const fade = (strength * state.opacity) / (1 + 2.2 * away);
      for (let i = i0; i < i1; i++) {
        const dx = (view.left + i * pixel - x + wobble) / (state.radius * state.scaleX);
        const u = cos * dx + sin * dy;
        const v = cos * dy - sin * dx;
        const cover = clamp01(0.5 - (geometry.distance(u, v) * state.radius) / (pixel + 0.01));
        if (cover <= 0) continue;
        this.#shade(u, v, w, state);
        const colour = this.#colour;
        canvas.blend(j * canvas.width + i, colour[0] ?? 0, colour[1] ?? 0, colour[2] ?? 0, cover * fade);
      }
    }
  }
}

/** Stripes are cream; on light colours, where cream would not show, a deeper tone of the colour or grey. */
function stripeColour({ colour }: SceneObject): Rgb {
  const cream: Rgb = [255, 250, 238];
  switch (colour) {
    case 'white':
      return [168, 170, 176];
    case 'yellow':
      return mixRgb(objectColours.yellow, cream, 0.85);
    case 'black':
      return [188, 190, 200];
    default:
      return multiplyRgb(cream, [255, 255, 255]);
  }
}

function towardsGrey(colour: Rgb, amount: number): Rgb {
  const grey = (colour[0] + colour[1] + colour[2]) / 3;
  return mixRgb(colour, [grey, grey, grey], amount);
}
