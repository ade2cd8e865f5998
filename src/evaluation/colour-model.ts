import { WorldRenderer } from '../data/worlds/render.ts';
import { sampleScene } from '../data/worlds/sample.ts';
import { type Background, type Colour, colours, type Finish } from '../data/worlds/scene.ts';
import { fold, type Key, keyFromSeed, RandomStream } from '../random/philox.ts';
import { type Size, videoFrom } from '../video/frames.ts';
import { ColourHistogram } from './colour-histogram.ts';
import { type Degradation, degraded } from './degrade.ts';
import { type OklabVideo, toOklabVideo } from './oklab-video.ts';

/** Bands of rows that each have a histogram of what is behind objects. */
const bands = 32;
/** Scenes rendered for each colour to learn from. */
const examples = 8;
/** Limit of the evidence of one pixel, as a logarithm of odds. */
const mostEvidence = 4;
/** Colours no further apart than this, in Oklab, are much alike. */
const nearby = 0.06;
/** What decoders do to sharp frames, about. */
const softening: Degradation = { blur: 0.7, noise: 4 };
/** A pixel counts so much less for a colour, as a logarithm, when another colour explains it better. */
const mostRivalry = 6;
/** A pixel of which nothing else is known is this much more likely behind than on an object, as a logarithm of odds. */
const prior = 1;

/** Limits the evidence of one pixel, a logarithm of odds, so that no pixel decides alone. */
export function limited(odds: number): number {
  return Math.max(-mostEvidence, Math.min(mostEvidence, odds));
}

/** What the pixels of a video say of themselves, one by one: logarithms of densities, f32 [frames, height, width]. */
export interface Evidence {
  readonly frames: number;
  readonly width: number;
  readonly height: number;
  /** Of the pixel's colour in the background; as much more as a pixel is likelier there before it is looked at. */
  readonly behind: Float32Array;
  /** Of the pixel's colour on objects of each colour. */
  readonly objects: ReadonlyMap<Colour, Float32Array>;
  /** The greatest of {@link objects}. */
  readonly strongest: Float32Array;
}

/** How much likelier each pixel is on an object, of any colour, than behind: a logarithm of odds from -4 to 4. */
export function evidenceOfObjects({ strongest, behind }: Evidence): Float32Array {
  return strongest.map((density, i) => limited(density - (behind[i] ?? 0)));
}

/** How much likelier each pixel is on an object of this colour than behind or on one of another colour. */
export function evidenceOfColour({ objects, strongest, behind }: Evidence, colour: Colour): Float32Array {
  const own = objects.get(colour) ?? strongest;
  return own.map(
    (density, i) =>
      limited(density - (behind[i] ?? 0)) + Math.max(-mostRivalry, density - (strongest[i] ?? 0)),
  );
}

/**
 * What colours a background shows and objects of each colour show in front of it: histograms over rendered worlds,
 * shadows and reflections counted as background. A naive Bayes classifier of pixels.
 */
export class ColourModel {
  readonly #behind: readonly ColourHistogram[];
  /** Logarithms of densities over cells, for objects of each colour. */
  readonly #objects: ReadonlyMap<Colour, Float32Array>;
  /** The rendered frames, Oklab, [height, width, 3] each; NaN on objects. */
  readonly #samples: Float32Array[] = [];

  /** Renders worlds to learn from: about half a second. */
  constructor(background: Background, size: Size) {
    const behind = Array.from({ length: bands }, () => new ColourHistogram());
    const key = fold(keyFromSeed(1), `colours ${background.place} ${background.time} ${background.weather}`);
    const objects = colours.map((colour): [Colour, Float32Array] => {
      const plain = new ColourHistogram();
      const striped = new ColourHistogram();
      for (let i = 0; i < examples; i++) {
        const [finishes, histogram] = i % 2 === 0 ? [unstriped, plain] : [[stripes], striped];
        const world = { key: fold(fold(key, colour), i), background, colour, finishes, soft: i % 4 > 1 };
        this.#samples.push(learn(world, size, behind, histogram));
      }
      for (const histogram of [plain, striped]) histogram.finish(2, 0.05);
      const { logs } = striped;
      // Stripes of a second tone belong to an object as well as its own colour does.
      return [colour, plain.logs.map((log, cell) => Math.max(log, logs[cell] ?? log))];
    });
    const spread = behind.map((_, band) => {
      const wide = new ColourHistogram();
      for (const [other, histogram] of behind.entries()) {
        const away = Math.abs(other - band);
        // What is scattered over the land may be a little higher or lower.
        if (away <= 2) wide.addAll(histogram, 2 ** -away);
      }
      wide.finish(1, 0.02);
      return wide;
    });
    this.#behind = spread;
    this.#objects = new Map(objects);
  }

  /** What each pixel says of itself. */
  evidence(video: OklabVideo): Evidence {
    const { data, frames, width, height } = video;
    const count = frames * width * height;
    const behind = new Float32Array(count);
    const strongest = new Float32Array(count);
    const objects = new Map(colours.map((colour) => [colour, new Float32Array(count)]));
    const layers = [...objects].map(([colour, values]) => ({
      values,
      logs: this.#objects.get(colour) ?? new Float32Array(0),
    }));
    const tables = this.#behind.map((histogram) => histogram.logs);
    for (let t = 0, pixel = 0; t < frames; t++) {
      for (let y = 0; y < height; y++) {
        const logs = tables[Math.floor((y * bands) / height)] ?? new Float32Array(0);
        for (let x = 0; x < width; x++, pixel++) {
          const at = 3 * pixel;
          const cell = ColourHistogram.cellOf(data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0);
          let best = Number.NEGATIVE_INFINITY;
          for (const { values, logs: own } of layers) {
            const density = own[cell] ?? 0;
            values[pixel] = density;
            if (density > best) best = density;
          }
          const usual = (logs[cell] ?? 0) + prior;
          // The sun and the moon are where they always are: worth a look only where there may be an object.
          const place = 3 * (y * width + x);
          behind[pixel] = best > usual ? Math.max(usual, this.#logNearby(data, at, place)) : usual;
          strongest[pixel] = best;
        }
      }
    }
    return { frames, width, height, behind, objects, strongest };
  }

  /** Logarithm of the density, with the prior, of a colour at a pixel, by the share of samples that are much like it there. */
  #logNearby(data: Float32Array, at: number, place: number): number {
    let [near, count] = [0, 0];
    const [l, a, b] = [data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0];
    for (const sample of this.#samples) {
      const x = sample[place] ?? Number.NaN;
      if (Number.isNaN(x)) continue;
      count++;
      const square = (x - l) ** 2 + ((sample[place + 1] ?? 0) - a) ** 2 + ((sample[place + 2] ?? 0) - b) ** 2;
      if (square < nearby * nearby) near++;
    }
    const volume = (4 / 3) * Math.PI * nearby ** 3;
    return Math.log(((near + 1e-3) / (count + 1)) * (ColourHistogram.cellVolume / volume)) + prior;
  }
}

const stripes: Finish = 'striped';
const unstriped: readonly Finish[] = ['plain', 'shiny'];

/** A world to learn from: objects of one colour in front of a background, sharp or soft. */
interface Example {
  readonly key: Key;
  readonly background: Background;
  readonly colour: Colour;
  readonly finishes: readonly Finish[];
  readonly soft: boolean;
}

/** Renders one world of objects of one colour and counts its pixels. Returns it, objects cut out. */
function learn(
  { key, background, colour, finishes, soft }: Example,
  { width, height }: Size,
  behind: readonly ColourHistogram[],
  objects: ColourHistogram,
): Float32Array {
  const { place, time, weather } = background;
  const choices = {
    colours: [colour],
    finishes,
    places: [place],
    times: [time],
    weathers: [weather],
    cameras: ['still'],
    counts: [2, 3],
  } as const;
  const scene = sampleScene(fold(key, 'scene'), { seconds: 2, choices });
  const renderer = new WorldRenderer(scene, width, height);
  const moment = new RandomStream(fold(key, 'moment')).uniform(0, scene.seconds);
  const sharp = videoFrom(renderer.frame(moment), { width, height, rate: 1 });
  // Half of the examples are spoilt as decoders do, so that both kinds of video are known.
  const shown = soft ? degraded(sharp, softening, fold(key, 'noise')) : sharp;
  const masks = scene.objects.map((_, index) => renderer.mask(index, moment));
  const { data } = toOklabVideo(shown);
  for (let pixel = 0; pixel < width * height; pixel++) {
    const cover = Math.max(...masks.map((mask) => mask[pixel] ?? 0));
    const at = 3 * pixel;
    const cell = ColourHistogram.cellOf(data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0);
    const band = behind[Math.floor((Math.floor(pixel / width) * bands) / height)];
    if (cover === 0) band?.add(cell);
    else {
      if (cover > 0.8) objects.add(cell);
      data[at] = Number.NaN;
    }
  }
  return data;
}
