import type { MotionKind, Scene, SceneObject } from '../data/worlds/scene.ts';
import type { HeldOutPrompt } from './held-out-prompts.ts';
import { type Proportion, proportion } from './interval.ts';
import type { ObjectSeen, WorldSeen } from './measure-world.ts';

/** What is asked of a video of a prompt, in the order of tables. */
export const attributes = [
  'colour',
  'shape',
  'motion',
  'motion kind',
  'direction',
  'background',
  'time of day',
  'count',
  'both colours',
  'both shapes',
  'both motions',
] as const;
/** One of {@link attributes}. */
export type Attribute = (typeof attributes)[number];

/** Which attributes a video got right; what was not asked is absent. */
export type Score = { readonly [A in Attribute]?: boolean };

/**
 * Compares what was seen with what was asked for.
 *
 * `motion` is kind and, where the prompt says one, direction together; `both ...` is asked of two objects: as a whole,
 * in any order. What follows another object is asked for the other's motion. A still is asked for no motion.
 */
export function scoreOf({ scene, says }: HeldOutPrompt, seen: WorldSeen, frames: number): Score {
  const { place, time } = scene.background;
  const common: Score = {
    ...(says.place && { background: seen.place === place }),
    ...(says.time && { 'time of day': seen.time === time }),
    count: seen.objects.length === scene.objects.length,
  };
  const moves = frames > 1 && says.motion;
  const whole = (object: Said) => (says.direction ? `${object.kind} ${object.way}` : object.kind);
  const wanted = scene.objects.map((object) => saidOf(scene, object));
  const found = seen.objects.slice(0, scene.objects.length).map(saidOfSeen);
  if (scene.objects.length > 1) {
    return {
      ...common,
      'both colours': alike(wanted.map(colourOf), found.map(colourOf)),
      'both shapes': alike(wanted.map(shapeOf), found.map(shapeOf)),
      ...(moves && { 'both motions': alike(wanted.map(whole), found.map(whole)) }),
    };
  }
  const [want] = wanted;
  const [got] = found;
  if (want === undefined) return common;
  return {
    colour: got?.colour === want.colour,
    shape: got?.shape === want.shape,
    ...(moves && {
      motion: got !== undefined && whole(got) === whole(want),
      'motion kind': got?.kind === want.kind,
    }),
    ...(moves && says.direction && { direction: got?.way === want.way }),
    ...common,
  };
}

/** How often each attribute that was asked at all was right. */
export function accuracyOf(scores: readonly Score[]): { readonly [A in Attribute]?: Proportion } {
  const rows = attributes.flatMap((attribute): [Attribute, Proportion][] => {
    const asked = scores.filter((score) => score[attribute] !== undefined);
    if (asked.length === 0) return [];
    return [[attribute, proportion(asked.filter((score) => score[attribute] === true).length, asked.length)]];
  });
  return Object.fromEntries(rows);
}

/** An object in words. */
interface Said {
  readonly colour: string;
  readonly shape: string;
  readonly kind: string;
  /** Direction or turn; empty for what has none. */
  readonly way: string;
}

const colourOf = ({ colour }: Said) => colour;
const shapeOf = ({ shape }: Said) => shape;

function saidOf(scene: Scene, object: SceneObject): Said {
  const { motion } = object;
  const leader = motion.kind === 'follow' ? scene.objects[motion.target]?.motion : undefined;
  return { colour: object.colour, shape: object.shape, ...wayOf(leader ?? motion) };
}

function saidOfSeen({ colour, shape, motion }: ObjectSeen): Said {
  return { colour, shape, ...(motion === undefined ? { kind: '', way: '' } : wayOf(motion)) };
}

function wayOf(motion: { readonly kind: MotionKind; readonly direction?: string; readonly turn?: string }) {
  return { kind: motion.kind, way: motion.direction ?? motion.turn ?? '' };
}

function alike(a: readonly string[], b: readonly string[]): boolean {
  return JSON.stringify(a.toSorted()) === JSON.stringify(b.toSorted());
}
