import { type Colour, type Shape, shapes } from '../data/worlds/scene.ts';
import type { Region } from './regions.ts';
import { climb, type EvidenceFrame, type Fit, type Pose, poseOver, silhouetteGain } from './silhouette.ts';
import { type Look, looks, type Stretch, type Synthesizer } from './synthesis.ts';

/** What an object turns out to be. */
export interface ShapeFit {
  readonly shape: Shape;
  readonly look: Look;
  /** How soft its edges are: standard deviation of a Gaussian, in pixels. */
  readonly blur: number;
  /** Whether it is seen turned, not upright. */
  readonly turned: boolean;
  /** Where it is in some frames. */
  readonly poses: readonly Pose[];
  /** Mean squared difference, of 255, between its rendering and what is seen. */
  readonly error: number;
  /** The same without any object. */
  readonly without: number;
}

/** An object in one frame: evidence of its colour, and about where it is. */
export interface Sighting {
  readonly frame: number;
  readonly evidence: EvidenceFrame;
  readonly region: Region;
}

/** Frames that are compared. */
const framesCompared = 5;
/** Of these, frames in which looks are told apart. */
const framesForLooks = 2;
/** Shapes that are drawn, of those whose silhouettes fit best. */
const shapesDrawn = 5;
/** Most shapes whose poses are refined, and how far behind the best of those drawn they may be. */
const shapesRefined = 4;
const closeBehind = 1.8;
/** Softness of edges that is tried, in pixels. */
const blurs = [0.45, 0.9, 1.4];
/** A drawing that leaves less than this share of the error is right as it is. */
const wellExplained = 0.15;
/** Angles tried in a full turn. */
const anglesTried = 24;
/** What stands upright more simply explains what is seen: errors of turned shapes count as much more. */
const turnedPenalty = 1.15;

/** Of how many equal turns each silhouette's full turn consists; a circle looks the same at any angle. */
const symmetries: { readonly [S in Shape]: number } = {
  ball: anglesTried,
  cube: 1,
  cylinder: 2,
  cone: 1,
  star: 5,
  heart: 1,
  ring: anglesTried,
  diamond: 2,
  capsule: 2,
  cross: 4,
};

/** A shape, upright or turned, with a pose in each of some frames. */
interface Candidate {
  readonly shape: Shape;
  readonly turned: boolean;
  readonly poses: readonly Pose[];
  readonly gain: number;
}

/**
 * The shape that explains sightings of an object of a colour best: those whose silhouettes gather most evidence are drawn
 * as the renderer would and compared with the pixels (analysis by synthesis).
 *
 * @param mayTurn whether the object stays where it is, so that it may be spinning.
 */
export function fitShape(
  synthesizer: Synthesizer,
  colour: Colour,
  sightings: readonly Sighting[],
  mayTurn: boolean,
): ShapeFit | undefined {
  const chosen = evenlyChosen(sightings, framesCompared);
  const candidates = shapes
    .flatMap((shape) => [upright(shape, chosen), ...(mayTurn ? [turnedCandidate(shape, chosen)] : [])])
    .sort((a, b) => b.gain - a.gain)
    .slice(0, mayTurn ? 2 * shapesDrawn : shapesDrawn);
  const stretches = chosen.map(({ frame }, i) =>
    synthesizer.stretch(
      frame,
      candidates.flatMap(({ shape, poses }) => {
        const pose = poses[i];
        return pose === undefined ? [] : [{ shape, pose }];
      }),
    ),
  );
  const without = mean(stretches.map((stretch) => synthesizer.errorWithout(stretch)));
  const drawn = candidates
    .flatMap((candidate) => {
      const upright = bestLook(synthesizer, colour, stretches, candidate);
      // Silhouettes do not tell at which of several angles stripes are; what is round may roll.
      const mayBeStriped =
        (isRound(candidate.shape) || (candidate.turned && symmetries[candidate.shape] > 1)) &&
        upright.error > wellExplained * without;
      return mayBeStriped ? [upright, stripesAligned(synthesizer, colour, stretches, candidate)] : [upright];
    })
    .sort((a, b) => penalised(a) - penalised(b));
  const [first] = drawn;
  if (first === undefined) return undefined;
  const [best] = drawn
    .filter((one) => penalised(one) < closeBehind * penalised(first))
    .slice(0, shapesRefined)
    .map((one) => refined(synthesizer, colour, stretches, one))
    .sort((a, b) => penalised(a) - penalised(b));
  if (best === undefined) return undefined;
  const { shape, turned } = best.candidate;
  const { look, blur, error } = best;
  return { shape, turned, look, blur, poses: best.candidate.poses, error, without };
}

/** Some items, evenly from first to last. */
export function evenlyChosen<T>(items: readonly T[], most: number): readonly T[] {
  if (items.length <= most) return items;
  return Array.from({ length: most }, (_, i) => {
    const item = items[Math.round((i * (items.length - 1)) / (most - 1))];
    if (item === undefined) throw new RangeError('nothing to choose from');
    return item;
  });
}

/** A shape's best upright pose in a frame. */
export function uprightPose({ evidence, region }: Sighting, shape: Shape, stretches = true): Fit {
  return climb(evidence, shape, bestStart(evidence, region, shape), stretches);
}

/**
 * Errors of an object's drawings at evenly spaced angles of a full turn, frame by frame: which way up it is.
 *
 * @param poses where it is in each of the sightings.
 */
export function errorsAtAngles(
  synthesizer: Synthesizer,
  colour: Colour,
  { shape, look: { finish, side }, blur }: ShapeFit,
  sightings: readonly { readonly frame: number; readonly pose: Pose }[],
): number[][] {
  // Only stripes show that something round turns.
  const look: Look = { finish: isRound(shape) ? 'striped' : finish, side };
  return sightings.map(({ frame, pose }) => {
    const circle = { shape: 'ball', pose: { ...pose, radius: 1.25 * pose.radius } } as const;
    const stretch = synthesizer.stretch(frame, [circle]);
    return Array.from({ length: anglesTried }, (_, i) => {
      const angle = (2 * Math.PI * i) / anglesTried;
      return synthesizer.error(stretch, { shape, colour }, look, { ...pose, angle }, blur);
    });
  });
}

function upright(shape: Shape, sightings: readonly Sighting[]): Candidate {
  const poses = sightings.map((sighting) => uprightPose(sighting, shape));
  return { shape, turned: false, poses, gain: gainOf(poses) };
}

function turnedCandidate(shape: Shape, sightings: readonly Sighting[]): Candidate {
  const poses = sightings.map(({ evidence, region }) => {
    let best: Fit | undefined;
    for (let i = 0; i < anglesTried / symmetries[shape]; i++) {
      const pose = poseOver(region, evidence.width, shape, (2 * Math.PI * i) / anglesTried);
      const gain = silhouetteGain(evidence, shape, pose);
      if (best === undefined || gain > best.gain) best = { ...pose, gain };
    }
    if (best === undefined) throw new RangeError('no angles');
    return climb(evidence, shape, best, false);
  });
  return { shape, turned: true, poses, gain: gainOf(poses) };
}

/** Over the region, or over the box around it, whichever gathers more: stripes may tear a region to pieces. */
function bestStart(evidence: EvidenceFrame, region: Region, shape: Shape): Pose {
  const plain = poseOver(region, evidence.width, shape);
  const larger = { ...plain, radius: 1.2 * plain.radius };
  return silhouetteGain(evidence, shape, larger) > silhouetteGain(evidence, shape, plain) ? larger : plain;
}

function gainOf(poses: readonly Fit[]): number {
  return poses.reduce((sum, { gain }) => sum + gain, 0);
}

/** A candidate as drawn. */
interface Drawn {
  readonly candidate: Candidate;
  readonly look: Look;
  readonly blur: number;
  readonly error: number;
}

function penalised({ candidate, error }: Drawn): number {
  return candidate.turned ? turnedPenalty * error : error;
}

function bestLook(
  synthesizer: Synthesizer,
  colour: Colour,
  stretches: readonly Stretch[],
  candidate: Candidate,
): Drawn {
  const indices = evenlyChosen([...stretches.keys()], framesForLooks);
  let best: Drawn | undefined;
  const attempt = (look: Look, blur: number) => {
    const error = mean(
      indices.map((i) =>
        errorAt(synthesizer, colour, candidate, stretches[i], candidate.poses[i], look, blur),
      ),
    );
    if (best === undefined || error < best.error) best = { candidate, look, blur, error };
  };
  const [sharp = 0, ...softer] = blurs;
  for (const look of looks) attempt(look, sharp);
  const sharpest: Look | undefined = best?.look ?? looks[0];
  for (const blur of softer) if (sharpest !== undefined) attempt(sharpest, blur);
  if (best === undefined) throw new RangeError('no looks');
  return best;
}

/** Something striped, in each frame at that of the angles which its silhouette allows where the stripes fit best. */
function stripesAligned(
  synthesizer: Synthesizer,
  colour: Colour,
  stretches: readonly Stretch[],
  candidate: Candidate,
): Drawn {
  const [blur = 0] = blurs;
  const { shape } = candidate;
  const angles = Math.min(12, symmetries[shape]);
  const sides = [-1, 1].map((side): Drawn => {
    const look: Look = { finish: 'striped', side };
    const found = stretches.map((stretch, i) => {
      const start = candidate.poses[i];
      if (start === undefined) throw new RangeError('a frame without a pose');
      let best: { readonly pose: Pose; readonly error: number } | undefined;
      for (let turn = 0; turn < angles; turn++) {
        const pose = { ...start, angle: start.angle + (2 * Math.PI * turn) / angles };
        const error = synthesizer.error(stretch, { shape, colour }, look, pose, blur);
        if (best === undefined || error < best.error) best = { pose, error };
      }
      return best ?? { pose: start, error: Number.POSITIVE_INFINITY };
    });
    const poses = found.map(({ pose }) => pose);
    return { candidate: { ...candidate, poses }, look, blur, error: mean(found.map(({ error }) => error)) };
  });
  return sides.reduce((a, b) => (b.error < a.error ? b : a));
}

function isRound(shape: Shape): boolean {
  return symmetries[shape] === anglesTried;
}

function errorAt(
  synthesizer: Synthesizer,
  colour: Colour,
  { shape }: Candidate,
  stretch: Stretch | undefined,
  pose: Pose | undefined,
  look: Look,
  blur: number,
): number {
  if (stretch === undefined || pose === undefined) throw new RangeError('a frame without a pose');
  return synthesizer.error(stretch, { shape, colour }, look, pose, blur);
}

/** The candidate with each pose moved, sized and turned so that the drawing fits best. */
function refined(
  synthesizer: Synthesizer,
  colour: Colour,
  stretches: readonly Stretch[],
  drawn: Drawn,
): Drawn {
  const { candidate, look, blur } = drawn;
  const found = stretches.map((stretch, i) => {
    const start = candidate.poses[i];
    if (start === undefined) throw new RangeError('a frame without a pose');
    const errorOf = (pose: Pose) =>
      synthesizer.error(stretch, { shape: candidate.shape, colour }, look, pose, blur);
    return descend(start, errorOf, candidate.turned);
  });
  const poses = found.map(({ pose }) => pose);
  return { ...drawn, candidate: { ...candidate, poses }, error: mean(found.map(({ error }) => error)) };
}

function descend(start: Pose, errorOf: (pose: Pose) => number, turns: boolean) {
  let pose = start;
  let least = errorOf(pose);
  for (let step = Math.max(0.6, 0.06 * start.radius); step > 0.2; step /= 2) {
    for (let round = 0; round < 2; round++) {
      const before = least;
      const changes: Partial<Pose>[] = [
        { x: pose.x + step },
        { x: pose.x - step },
        { y: pose.y + step },
        { y: pose.y - step },
        { radius: pose.radius + 0.7 * step },
        { radius: pose.radius - 0.7 * step },
        ...(turns
          ? [{ angle: pose.angle + step / pose.radius }, { angle: pose.angle - step / pose.radius }]
          : []),
      ];
      for (const change of changes) {
        const next = { ...pose, ...change };
        const error = errorOf(next);
        if (error >= least) continue;
        least = error;
        pose = next;
      }
      if (least === before) break;
    }
  }
  return { pose, error: least };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
