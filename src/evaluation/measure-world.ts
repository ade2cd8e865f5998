import type { Background, Colour, Place, Shape, Time } from '../data/worlds/scene.ts';
import type { Size, Video } from '../video/frames.ts';
import { BackgroundClassifier } from './background.ts';
import { ColourModel } from './colour-model.ts';
import { halvesOf } from './halves.ts';
import { fitMotion, fitSpin, type MotionSeen, type PathPoint, staysInPlace } from './motion-fit.ts';
import { toOklabVideo } from './oklab-video.ts';
import { estimatePlate, withPlate } from './plate.ts';
import {
  errorsAtAngles,
  evenlyChosen,
  fitShape,
  type ShapeFit,
  type Sighting,
  uprightPose,
} from './shape.ts';
import type { Fit } from './silhouette.ts';
import { pixelsOf, Synthesizer } from './synthesis.ts';
import { centreOf, type Track, TrackFinder } from './tracks.ts';

/** An object as it was seen. */
export interface ObjectSeen {
  readonly colour: Colour;
  readonly shape: Shape;
  /** Undefined for a still, which shows none. */
  readonly motion: MotionSeen | undefined;
  /** What is left unexplained of the pixels about it, as a share of what would be without it: 0 for a rendering. */
  readonly unexplained: number;
  /** Evidence for it in the frames that show it, on average. */
  readonly gain: number;
}

/** What a video was seen to show. */
export interface WorldSeen {
  readonly place: Place;
  readonly time: Time;
  /** The clearest first. */
  readonly objects: readonly ObjectSeen[];
}

/** Objects that leave more unexplained than this are none: shadows, glitter, clouds. */
const mostUnexplained = 0.5;
/** Most objects that are looked for: one more than worlds have, so that too many can be told. */
const mostObjects = 5;
/**
 * Least evidence for an object in the frames that show it, on average, at 64x64 pixels. Something is always there, so that
 * the first one may be faint; white at sea may be foam or glitter.
 */
const leastGainOfFirst = 15;
const leastGain = 130;
const leastGainOfFoam = 250;
/** What leaves less unexplained than this is one object; more, it may be two alike that touch. */
const worthCutting = 0.12;
/** Two objects must leave less unexplained than this share of what one does. */
const cutShare = 0.66;
/** An object is hidden where so much of its place is another's. */
const hidingShare = 0.35;
/** Frames in which it is looked for turning. */
const framesForSpin = 13;
/** An object whose centre wanders less than this share of the shorter side, in standard deviations, may be turning. */
const mayTurnWithin = 0.06;

/**
 * Sees in pixels what a world shows: place and time of day, and each object's colour, shape and motion, all chosen among
 * everything there is. Classical measurement, no network: histograms of colours, silhouettes and renderings fitted to
 * the frames, laws of motion fitted to paths. It is told nothing of what was asked for.
 *
 * For still cameras. What it needs to know of each frame size and background is rendered at its first use and kept.
 */
export class WorldMeter {
  readonly #classifiers = new Map<string, BackgroundClassifier>();
  readonly #colours = new Map<string, ColourModel>();

  /** Measures one video: about half a second for 64x64 pixels and 25 frames. */
  measure(video: Video): WorldSeen {
    const lab = toOklabVideo(video);
    const background = this.#classifierFor(video).classify(lab);
    const alone = this.#coloursFor(video, background).evidence(lab);
    const plate = estimatePlate(lab, alone);
    const evidence = withPlate(lab, alone, plate, background);
    const synthesizer = new Synthesizer(video, background, plate);
    const finder = new TrackFinder(evidence);
    const objects: ObjectSeen[] = [];
    const scale = (Math.min(video.width, video.height) / 64) ** 2;
    let likeliest: ObjectSeen | undefined;
    for (let i = 0; i < mostObjects; i++) {
      const track = finder.next(likeliest === undefined ? leastGainOfFirst : leastGain);
      if (track === undefined) break;
      for (const found of apart(new TrackedObject(video, synthesizer, finder, track))) {
        const seen = found.seen();
        if (likeliest === undefined || seen.unexplained < likeliest.unexplained) likeliest = seen;
        const isFoam =
          background.place === 'sea' && seen.colour === 'white' && seen.gain < leastGainOfFoam * scale;
        if (seen.unexplained <= mostUnexplained && !isFoam) objects.push(seen);
        for (const { frame, pixels } of found.pixels()) finder.crossOut(frame, pixels);
      }
    }
    // What is most like a shape is called the object where nothing is much like one.
    if (objects.length === 0 && likeliest !== undefined) objects.push(likeliest);
    return { place: background.place, time: background.time, objects };
  }

  #classifierFor({ width, height }: Size): BackgroundClassifier {
    const key = `${width}x${height}`;
    const known = this.#classifiers.get(key) ?? new BackgroundClassifier({ width, height });
    this.#classifiers.set(key, known);
    return known;
  }

  #coloursFor({ width, height }: Size, background: Background): ColourModel {
    const { place, time, weather } = background;
    const key = `${width}x${height} ${place} ${time} ${weather}`;
    const known = this.#colours.get(key) ?? new ColourModel(background, { width, height });
    this.#colours.set(key, known);
    return known;
  }
}

/**
 * What was taken for one object as the two alike that it is, where that explains the frames much better; else itself.
 */
function apart(whole: TrackedObject): readonly TrackedObject[] {
  if (whole.unexplained < worthCutting) return [whole];
  const halves = whole.halves();
  const [a, b] = halves;
  const better = 0.5 * (a.unexplained + b.unexplained) < cutShare * whole.unexplained;
  return better && a.shape === b.shape ? halves : [whole];
}

/** An object that is followed through a video: its shape, its poses, its motion. */
class TrackedObject {
  readonly #video: Video;
  readonly #synthesizer: Synthesizer;
  readonly #finder: TrackFinder;
  readonly #track: Track;
  readonly #sightings: readonly Sighting[];
  readonly #fit: ShapeFit;
  readonly #poses: readonly Fit[];

  constructor(video: Video, synthesizer: Synthesizer, finder: TrackFinder, track: Track) {
    const { width, height } = video;
    this.#video = video;
    this.#synthesizer = synthesizer;
    this.#finder = finder;
    this.#track = track;
    this.#sightings = track.regions.flatMap((region, frame) => {
      const values = track.values.subarray(frame * width * height, (frame + 1) * width * height);
      return region === undefined ? [] : [{ frame, region, evidence: { values, width, height } }];
    });
    const centres = this.#sightings.map(({ region }) => centreOf(region, width));
    const wanders = Math.hypot(deviation(centres.map(([x]) => x)), deviation(centres.map(([, y]) => y)));
    const mayTurn = wanders < mayTurnWithin * Math.min(width, height);
    const fit = fitShape(synthesizer, track.colour, this.#sightings, mayTurn);
    if (fit === undefined) throw new RangeError('a track without sightings');
    this.#fit = fit;
    this.#poses = this.#sightings.map((sighting) => uprightPose(sighting, fit.turned ? 'ball' : fit.shape));
  }

  get shape(): Shape {
    return this.#fit.shape;
  }

  get unexplained(): number {
    return this.#fit.error / Math.max(1, this.#fit.without);
  }

  /** The same track as two objects that touch. */
  halves(): readonly [TrackedObject, TrackedObject] {
    const [a, b] = halvesOf(this.#track, this.#video.width);
    return [
      new TrackedObject(this.#video, this.#synthesizer, this.#finder, a),
      new TrackedObject(this.#video, this.#synthesizer, this.#finder, b),
    ];
  }

  seen(): ObjectSeen {
    return {
      colour: this.#track.colour,
      shape: this.shape,
      motion: this.#video.frames === 1 ? undefined : this.#motion(),
      gain: this.#track.gain / this.#sightings.length,
      unexplained: this.unexplained,
    };
  }

  *pixels(): Generator<{ readonly frame: number; readonly pixels: readonly number[] }> {
    for (const [i, { frame }] of this.#sightings.entries()) {
      const pose = this.#poses[i];
      if (pose === undefined) continue;
      const shape = this.#fit.turned ? 'ball' : this.#fit.shape;
      const larger = this.#fit.turned ? { ...pose, radius: 1.2 * pose.radius } : pose;
      yield { frame, pixels: pixelsOf(this.#video, shape, larger) };
    }
  }

  #motion(): MotionSeen {
    const { frames, rate } = this.#video;
    if (this.#fit.turned) {
      const turn = this.#spin();
      if (turn !== undefined) return { kind: 'spin', turn };
    }
    const path = this.#path();
    const motion = fitMotion(path, frames, frames / rate, this.#hiddenFrames());
    if (motion.kind !== 'still' || !staysInPlace(path)) return motion;
    const turn = this.#spin();
    return turn === undefined ? motion : { kind: 'spin', turn };
  }

  /** Frames that do not show it, and in which what was found before it lies where it usually is. */
  #hiddenFrames(): number {
    const [middle] = this.#poses.slice(Math.floor(this.#poses.length / 2));
    if (middle === undefined) return 0;
    const place = pixelsOf(this.#video, 'ball', middle);
    const missing = this.#track.regions.flatMap((region, frame) => (region === undefined ? [frame] : []));
    return missing.filter((frame) => this.#finder.crossedOut(frame, place) > hidingShare).length;
  }

  #path(): PathPoint[] {
    const { width, height } = this.#video;
    const unit = 2 / Math.min(width, height);
    return this.#sightings.map(({ frame }, i) => {
      const { x = 0, y = 0, radius = 0 } = this.#poses[i] ?? {};
      return {
        time: this.#timeOf(frame),
        x: (x - (width - 1) / 2) * unit,
        y: (y - (height - 1) / 2) * unit,
        radius: radius * unit,
      };
    });
  }

  #spin() {
    const some = evenlyChosen([...this.#sightings.keys()], framesForSpin).flatMap((i) => {
      const sighting = this.#sightings[i];
      return sighting === undefined ? [] : [sighting];
    });
    const { poses } = this.#fit;
    const centre = {
      x: median(poses.map(({ x }) => x)),
      y: median(poses.map(({ y }) => y)),
      radius: median(poses.map(({ radius }) => radius)),
      squash: 1,
      angle: 0,
    };
    const errors = errorsAtAngles(
      this.#synthesizer,
      this.#track.colour,
      this.#fit,
      some.map(({ frame }) => ({ frame, pose: centre })),
    );
    return fitSpin(errors.map((atAngle, i) => ({ time: this.#timeOf(some[i]?.frame ?? 0), atAngle })));
  }

  #timeOf(frame: number): number {
    return frame / this.#video.rate;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function deviation(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length));
}
