import { type ObjectState, objectState } from './motion.ts';
import { frameCount, type RenderOptions } from './render.ts';
import type { Scene, Shape } from './scene.ts';
import { outline } from './shapes.ts';
import { cameraAt, parallaxAt, stageFor } from './stage.ts';

/** Where one object is in a frame. Positions are fractions of the frame: 0 to 1 from its left or upper edge. */
export interface ObjectTruth {
  /** Its centre, x and y. */
  readonly centre: readonly [number, number];
  /** The smallest box around its outline: left, top, right, bottom. Not cut off at the edges of the frame. */
  readonly box: readonly [number, number, number, number];
  /** Turn clockwise as seen, in radians, since it was upright. */
  readonly angle: number;
  /** 0 (blinked off) to 1. */
  readonly opacity: number;
  /** y of the ground below it; of two objects the one with the lower ground (greater y) is in front. */
  readonly ground: number;
}

/** The truth about one frame: its time in seconds and its objects in the order of the scene. */
export interface FrameTruth {
  readonly time: number;
  readonly objects: readonly ObjectTruth[];
}

/** Where everything is in every frame that {@link RenderOptions} makes of a scene. */
export function groundTruth(scene: Scene, { width, height, rate }: RenderOptions): FrameTruth[] {
  return Array.from({ length: frameCount(scene, rate) }, (_, i) => {
    const time = i / rate;
    const objects = scene.objects.map((_, index) => objectTruth(scene, width / height, index, time));
    return { time, objects };
  });
}

/** Where object `index` is at `time` seconds in frames of an aspect ratio (width / height). */
export function objectTruth(scene: Scene, aspect: number, index: number, time: number): ObjectTruth {
  const shape = scene.objects[index]?.shape;
  if (shape === undefined) throw new RangeError(`object ${index} of a scene of ${scene.objects.length}`);
  const stage = stageFor(aspect, 1);
  const state = objectState(scene, stage, index, time);
  const { zoom, pan, shakeX, shakeY } = cameraAt(scene.camera, time, scene.seconds);
  const shift = -pan * parallaxAt(stage, state.ground) - shakeX;
  const across = (x: number) => 0.5 + (0.5 * (x + shift) * zoom) / stage.halfWidth;
  const down = (y: number) => 0.5 + (0.5 * (y - shakeY) * zoom) / stage.halfHeight;
  const [left, top, right, bottom] = stageBox(shape, state);
  return {
    centre: [across(state.x), down(state.y)],
    box: [across(left), down(top), across(right), down(bottom)],
    angle: state.angle,
    opacity: state.opacity,
    ground: down(state.ground),
  };
}

type Box = readonly [left: number, top: number, right: number, bottom: number];

/** The smallest box around an object, in stage units before the camera. */
function stageBox(shape: Shape, state: ObjectState): Box {
  const [left, top, right, bottom] = state.angle === 0 ? uprightExtent(shape) : extent(shape, state.angle);
  const wide = state.radius * state.scaleX;
  const high = state.radius * state.scaleY;
  return [state.x + left * wide, state.y + top * high, state.x + right * wide, state.y + bottom * high];
}

const upright = new Map<Shape, Box>();

function uprightExtent(shape: Shape): Box {
  const known = upright.get(shape) ?? extent(shape, 0);
  upright.set(shape, known);
  return known;
}

/** How far a shape of radius 1 reaches when turned by an angle. */
function extent(shape: Shape, angle: number): Box {
  const points = outline(shape);
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  let left = Number.POSITIVE_INFINITY;
  let top = Number.POSITIVE_INFINITY;
  let right = Number.NEGATIVE_INFINITY;
  let bottom = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < points.length; i += 2) {
    const u = points[i] ?? 0;
    const v = points[i + 1] ?? 0;
    const x = cos * u - sin * v;
    const y = sin * u + cos * v;
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  }
  return [left, top, right, bottom];
}

/** Aspect ratios in which a statement about a scene must hold to be made: square, wide and tall. */
export const statedAspects: readonly number[] = [1, 16 / 9, 9 / 16];

/** How objects can lie to each other, as seen in the frame. */
export const relationKinds = ['left of', 'right of', 'above', 'below', 'in front of', 'behind'] as const;
/** One of {@link relationKinds}. */
export type RelationKind = (typeof relationKinds)[number];

/** Sides of the frame. */
export const sides = ['left', 'middle', 'right'] as const;
/** One of {@link sides}. */
export type Side = (typeof sides)[number];

const momentsChecked = 9;

/** How object `a` lies to object `b` all the time and in every one of {@link statedAspects}; undefined when nothing lasts. */
export function relationBetween(scene: Scene, a: number, b: number): RelationKind | undefined {
  const pairs = everyMoment(scene, (aspect, time) => [
    objectTruth(scene, aspect, a, time),
    objectTruth(scene, aspect, b, time),
  ]);
  return relationKinds.find((kind) => pairs.every(([one, other]) => one && other && holds(kind, one, other)));
}

/** On which side of the frame an object is all the time in every one of {@link statedAspects}, if on one. */
export function sideOf(scene: Scene, index: number): Side | undefined {
  const xs = everyMoment(scene, (aspect, time) => objectTruth(scene, aspect, index, time).centre[0]);
  const low = Math.min(...xs);
  const high = Math.max(...xs);
  if (high < 0.36) return 'left';
  if (low > 0.64) return 'right';
  return low > 0.42 && high < 0.58 ? 'middle' : undefined;
}

function everyMoment<T>(scene: Scene, look: (aspect: number, time: number) => T): T[] {
  return statedAspects.flatMap((aspect) =>
    Array.from({ length: momentsChecked }, (_, i) => look(aspect, (i / momentsChecked) * scene.seconds)),
  );
}

function holds(kind: RelationKind, a: ObjectTruth, b: ObjectTruth): boolean {
  switch (kind) {
    case 'left of':
      return a.centre[0] < b.box[0] && a.box[2] < b.centre[0] && levelWith(a, b);
    case 'right of':
      return holds('left of', b, a);
    case 'above': {
      const apart = Math.abs(a.centre[0] - b.centre[0]);
      const wide = Math.min(a.box[2] - a.box[0], b.box[2] - b.box[0]);
      return apart < 0.6 * wide && a.box[3] < b.centre[1] && a.centre[1] < b.box[1];
    }
    case 'below':
      return holds('above', b, a);
    case 'in front of':
      return a.ground > b.ground + 0.02 && overlapX(a, b) && a.box[1] < b.box[3] && b.box[1] < a.box[3];
    case 'behind':
      return holds('in front of', b, a);
  }
}

/** Neither is so much higher that "beside" would sound wrong. */
function levelWith(a: ObjectTruth, b: ObjectTruth): boolean {
  const across = Math.abs(a.centre[0] - b.centre[0]);
  return Math.abs(a.centre[1] - b.centre[1]) < 2.2 * across;
}

function overlapX(a: ObjectTruth, b: ObjectTruth): boolean {
  const shared = Math.min(a.box[2], b.box[2]) - Math.max(a.box[0], b.box[0]);
  return shared > 0.3 * Math.min(a.box[2] - a.box[0], b.box[2] - b.box[0]);
}
