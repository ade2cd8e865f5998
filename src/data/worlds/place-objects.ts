import { UserError } from '../../errors.ts';
import type { RandomStream } from '../../random/philox.ts';
import { type ObjectTruth, objectTruth, statedAspects } from './ground-truth.ts';
import { checkScene } from './parse-scene.ts';
import type { Motion, Position, Scene, SceneObject } from './scene.ts';

/** An object that has no place yet. */
export type Member = Omit<SceneObject, 'position'>;

const tries = 40;
const moments = 8;
/** Most that one object may hide of another on average over the scene. */
const mostHidden = 0.22;
/** Least way of what moves along, as a fraction of the frame's width. */
const leastTravel = 0.27;

/**
 * Finds places for a cast in an otherwise finished scene, so that everyone stays in the frame and nobody hides another
 * for long, in square, wide and tall frames, and `accept` agrees. Returns the objects, or undefined when 40 random
 * arrangements all fail or a motion is impossible for its object.
 */
export function arrange(
  scene: Scene,
  cast: readonly Member[],
  random: RandomStream,
  accept: (scene: Scene) => boolean = () => true,
): SceneObject[] | undefined {
  for (let i = 0; i < tries; i++) {
    const objects: SceneObject[] = [];
    for (const [index, member] of cast.entries()) {
      const position = drawPosition(random, member.motion, index, cast);
      // Alike objects are all on the ground or all in the air, so that one phrase describes them.
      const height = member === cast[index - 1] ? objects[index - 1]?.position.height : undefined;
      objects.push({ ...member, position: { ...position, height: height ?? position.height } });
    }
    const candidate = { ...scene, objects };
    if (!possible(candidate)) return undefined;
    const fits = statedAspects.every((aspect) => goesFar(candidate, aspect) && wellSpread(candidate, aspect));
    if (fits && accept(candidate)) return objects;
  }
  return undefined;
}

/** Whether the scene keeps the rules of its language, as `checkScene` has them. */
function possible(scene: Scene): boolean {
  try {
    checkScene(scene);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

function drawPosition(
  random: RandomStream,
  motion: Motion,
  index: number,
  cast: readonly Member[],
): Position {
  // Adding 0 turns -0 into 0, as JSON does.
  const round = (value: number) => Math.round(value * 100) / 100 + 0;
  const followed = cast.some(({ motion: other }) => other.kind === 'follow' && other.target === index);
  const alone = cast.length === 1;
  const depth = round(alone ? random.uniform(0.25, 0.75) : random.uniform(0, 1));
  const anywhere = alone ? random.uniform(-0.7, 0.7) : random.uniform(-1, 1);
  const heading = 'direction' in motion && motion.direction !== 'in place' ? motion.direction : undefined;
  // Who is followed begins nearer the middle and leaves room behind.
  const start = followed ? random.uniform(0.1, 0.3) : random.uniform(0.75, 1);
  const x = round(heading === undefined ? anywhere : heading === 'right' ? -start : start);
  return { x, height: round(drawHeight(random, motion)), depth };
}

function drawHeight(random: RandomStream, motion: Motion): number {
  switch (motion.kind) {
    case 'still':
    case 'blink':
      return random.uniform() < 0.75 ? 0 : random.uniform(0.25, 0.9);
    case 'slide':
      return random.uniform() < 0.75 ? 0 : random.uniform(0.3, 0.9);
    case 'bounce':
      return random.uniform(0.55, 1);
    case 'fall':
    case 'rise':
      return random.uniform(0.8, 1);
    case 'orbit':
      return random.uniform(0.3, 0.7);
    case 'spin':
      return random.uniform() < 0.5 ? 0 : random.uniform(0.1, 0.6);
    case 'grow':
    case 'shrink':
    case 'follow':
      return 0;
  }
}

function wellSpread(scene: Scene, aspect: number): boolean {
  const hidden = scene.objects.map(() => scene.objects.map(() => 0));
  for (let m = 0; m < moments; m++) {
    const time = ((m + 0.5) / moments) * scene.seconds;
    const truths = scene.objects.map((_, i) => objectTruth(scene, aspect, i, time));
    if (!truths.every(inFrame)) return false;
    for (const [i, a] of truths.entries()) {
      for (const [j, b] of truths.entries()) {
        if (j <= i) continue;
        const shared = overlap(a, b);
        if (shared > mostOverlap(scene, i, j, a, b)) return false;
        const row = hidden[i];
        if (row !== undefined) row[j] = (row[j] ?? 0) + shared / moments;
      }
    }
  }
  return hidden.every((row, i) =>
    row.every((share, j) => share < (circles(scene, i, j) ? 0.45 : mostHidden)),
  );
}

/** Whether what moves along is seen to do so, though the camera may move along too. */
function goesFar(scene: Scene, aspect: number): boolean {
  return scene.objects.every(({ motion }, i) => {
    if (!('direction' in motion) || motion.direction === 'in place') return true;
    const [from] = objectTruth(scene, aspect, i, 0).centre;
    const [to] = objectTruth(scene, aspect, i, scene.seconds).centre;
    return (to - from) * (motion.direction === 'right' ? 1 : -1) > leastTravel;
  });
}

function inFrame({ box }: ObjectTruth): boolean {
  return box[0] > -0.03 && box[1] > -0.03 && box[2] < 1.03 && box[3] < 1.03;
}

/** Passing by at another depth may hide all for a moment; at the same depth objects must not run into each other. */
function mostOverlap(scene: Scene, i: number, j: number, a: ObjectTruth, b: ObjectTruth): number {
  const [one, other] = [scene.objects[i], scene.objects[j]];
  const passes = (motion: Motion | undefined) =>
    motion !== undefined &&
    ('direction' in motion ? motion.direction !== 'in place' : motion.kind === 'orbit');
  if (circles(scene, i, j)) return 1;
  const crossing = passes(one?.motion) || passes(other?.motion);
  return crossing && Math.abs(a.ground - b.ground) > 0.04 ? 1 : 0.05;
}

/** Whether one of two objects goes round the other: in front of it, then behind it. */
function circles(scene: Scene, i: number, j: number): boolean {
  const round = (a: number, b: number) => {
    const motion = scene.objects[a]?.motion;
    return motion?.kind === 'orbit' && motion.around === b;
  };
  return round(i, j) || round(j, i);
}

/** Shared area as a fraction of the smaller box. */
function overlap(a: ObjectTruth, b: ObjectTruth): number {
  const wide = Math.min(a.box[2], b.box[2]) - Math.max(a.box[0], b.box[0]);
  const high = Math.min(a.box[3], b.box[3]) - Math.max(a.box[1], b.box[1]);
  if (wide <= 0 || high <= 0) return 0;
  const area = ({ box }: ObjectTruth) => (box[2] - box[0]) * (box[3] - box[1]);
  return (wide * high) / Math.min(area(a), area(b));
}
