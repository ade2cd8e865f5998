import { fold, keyFromSeed, RandomStream } from '../../random/philox.ts';
import { type Video, videoFrom } from '../../video/frames.ts';
import { Canvas, type View, viewOf } from './canvas.ts';
import { type ObjectState, objectState } from './motion.ts';
import { paletteOf } from './palette.ts';
import { city } from './places/city.ts';
import { desert } from './places/desert.ts';
import type { Backdrop, Setting } from './places/ground.ts';
import { meadow } from './places/meadow.ts';
import { moon } from './places/moon.ts';
import { sea } from './places/sea.ts';
import type { Place, Scene } from './scene.ts';
import { Sky } from './sky.ts';
import { Sprite } from './sprite.ts';
import { cameraAt, parallaxAt, type Stage, stageFor } from './stage.ts';
import { Precipitation } from './weather.ts';

const backdrops: { readonly [P in Place]: (setting: Setting) => Backdrop } = {
  meadow,
  sea,
  desert,
  city,
  space: moon,
};

/** Size and rate of a rendered world. */
export interface RenderOptions {
  /** Pixels, at least 1 each; any aspect ratio. */
  readonly width: number;
  readonly height: number;
  /** Frames per second, above 0. */
  readonly rate: number;
}

/** The number of frames of a scene at a rate: at least one. */
export function frameCount(scene: Scene, rate: number): number {
  return Math.max(1, Math.round(scene.seconds * rate));
}

/**
 * Renders a whole scene. The same scene, size and rate give the same bytes.
 *
 * Its memory is that of the video; use {@link WorldRenderer} for a frame at a time.
 * @throws UserError when the size or the rate is not positive.
 */
export function renderWorld(scene: Scene, { width, height, rate }: RenderOptions): Video {
  const count = frameCount(scene, rate);
  const bytes = 3 * width * height;
  const video = videoFrom(new Uint8Array(bytes * count), { width, height, rate });
  const renderer = new WorldRenderer(scene, width, height);
  for (let i = 0; i < count; i++) {
    renderer.frame(i / rate, video.data.subarray(bytes * i, bytes * (i + 1)));
  }
  return video;
}

/** Paints any moment of one scene at one frame size. */
export class WorldRenderer {
  readonly #scene: Scene;
  readonly #stage: Stage;
  readonly #canvas: Canvas;
  readonly #sky: Sky;
  readonly #backdrop: Backdrop;
  readonly #sprites: readonly Sprite[];
  readonly #precipitation: Precipitation;
  readonly #reflection: number;

  /** Lays the scene out for frames of `width` by `height` pixels. */
  constructor(scene: Scene, width: number, height: number) {
    this.#scene = scene;
    this.#stage = stageFor(width, height);
    this.#canvas = new Canvas(width, height);
    const key = keyFromSeed(scene.decor);
    const palette = paletteOf(scene.background);
    const side = new RandomStream(fold(key, 'side')).int(2) === 0 ? -1 : 1;
    const { place, time, weather } = scene.background;
    const stage = this.#stage;
    this.#sky = new Sky(stage, palette, side, fold(key, 'sky'));
    this.#backdrop = backdrops[place]({
      stage,
      palette,
      time,
      weather,
      side,
      sunX: this.#sky.sun.x,
      key: fold(key, 'land'),
    });
    this.#sprites = scene.objects.map((object) => new Sprite(object, palette, side));
    this.#precipitation = new Precipitation(weather, time, stage, fold(key, 'weather'));
    this.#reflection = place === 'sea' ? 0.5 : place === 'city' && weather === 'rain' ? 0.25 : 0;
  }

  /** Paints the scene at `time` seconds into `out`, shape [height, width, 3], and returns it. */
  frame(
    time: number,
    out: Uint8Array = new Uint8Array(3 * this.#canvas.width * this.#canvas.height),
  ): Uint8Array {
    const { view, objects } = this.#at(time);
    const canvas = this.#canvas;
    this.#sky.draw(canvas, view, time);
    this.#backdrop.draw(canvas, view, time);
    for (const { sprite, state, shiftX } of objects) {
      sprite.drawShadow(canvas, view, state, shiftX);
      if (this.#reflection > 0) {
        sprite.drawReflection(canvas, view, state, shiftX, this.#reflection, time);
      }
    }
    for (const { sprite, state, shiftX } of objects) sprite.draw(canvas, view, state, shiftX);
    this.#precipitation.draw(canvas, view, time);
    canvas.toBytes(out);
    return out;
  }

  /** How much of each pixel object `index` covers at `time` seconds, as if alone: 0 to 1, shape [height, width]. */
  mask(index: number, time: number): Float32Array {
    const { view, objects } = this.#at(time);
    const canvas = this.#canvas;
    const out = new Float32Array(canvas.width * canvas.height);
    const found = objects.find((object) => object.index === index);
    found?.sprite.cover(canvas, view, found.state, found.shiftX, out);
    return out;
  }

  /** How much of each pixel objects cover at `time` seconds, shape [height, width]: the most that any of them does. */
  coverage(time: number): Float32Array {
    const covered = new Float32Array(this.#canvas.width * this.#canvas.height);
    for (const object of this.#scene.objects.keys()) {
      for (const [i, share] of this.mask(object, time).entries())
        covered[i] = Math.max(covered[i] ?? 0, share);
    }
    return covered;
  }

  /** The view, and the objects from back to front. */
  #at(time: number): { view: View; objects: readonly PlacedSprite[] } {
    const scene = this.#scene;
    const stage = this.#stage;
    const { width, height } = this.#canvas;
    const view = viewOf(stage, width, height, cameraAt(scene.camera, time, scene.seconds));
    const objects = this.#sprites
      .map((sprite, index) => {
        const state = objectState(scene, stage, index, time);
        return { sprite, state, index, shiftX: -view.pan * parallaxAt(stage, state.ground) };
      })
      .sort((a, b) => a.state.ground - b.state.ground || a.index - b.index);
    return { view, objects };
  }
}

interface PlacedSprite {
  readonly sprite: Sprite;
  readonly state: ObjectState;
  readonly index: number;
  readonly shiftX: number;
}
