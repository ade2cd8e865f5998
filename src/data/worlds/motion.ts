import { clamp, mix, smooth, wrap } from './numeric.ts';
import type { Direction, Motion, Pace, Scene, SceneObject } from './scene.ts';
import { geometries } from './shapes.ts';
import { type Room, radii, roomFor, type Stage, xAt } from './stage.ts';

/** Where an object is and how it looks at one time, in stage units, before the camera. */
export interface ObjectState {
  readonly x: number;
  readonly y: number;
  /** Radius before squashing. */
  readonly radius: number;
  /** Stretch along x and y, near 1, from landing and flying. */
  readonly scaleX: number;
  readonly scaleY: number;
  /** Turn clockwise as seen, in radians. */
  readonly angle: number;
  /** 0 (gone) to 1. */
  readonly opacity: number;
  /** y of the ground below it: decides shadow, parallax and what covers what. */
  readonly ground: number;
}

/** Seconds per period of each repeating motion. */
export const periods: {
  readonly [K in 'bounce' | 'orbit' | 'spin' | 'blink']: { readonly [P in Pace]: number };
} = {
  bounce: { slow: 1.5, steady: 1, fast: 0.66 },
  orbit: { slow: 3.4, steady: 2.2, fast: 1.4 },
  // Slow enough that the five-fold star, at 8 frames a second, does not seem to turn backwards.
  spin: { slow: 4, steady: 2.6, fast: 1.6 },
  blink: { slow: 1.6, steady: 1, fast: 0.6 },
};

/** How many times its radius an object has at the end of growing. */
export const growth = 1.9;
/** How many times its radius an object has at the end of shrinking. */
export const dwindling = 0.5;
/** Where motions along the ground end, as a fraction of the room. */
const farEnd = 0.95;
/** Part of a bounce that is spent on the ground, squashed. */
const contactShare = 0.18;
/** Falling takes this share of the scene, at most so many seconds. */
const fallShare = 0.62;
const longestFall = 1.6;

const turnSign = { clockwise: 1, counterclockwise: -1 } as const;
const sign = (direction: Direction) => (direction === 'right' ? 1 : -1);

/** The state of object `index` at `time` seconds. */
export function objectState(scene: Scene, stage: Stage, index: number, time: number): ObjectState {
  const object = objectAt(scene, index);
  const { motion } = object;
  if (motion.kind === 'follow') return followerState(scene, stage, object, motion.target, time);
  if (motion.kind === 'orbit' && motion.around !== null) {
    return satelliteState(scene, stage, object, motion.around, time);
  }
  return moveAlone(object, motion, roomOf(scene, stage, object), time, scene.seconds);
}

/** The room of an object: for a growing one, of its final size. */
function roomOf(scene: Scene, stage: Stage, object: SceneObject): Room {
  const scale = object.motion.kind === 'grow' ? growth : 1;
  const reach = geometries[object.shape].reach * radii[object.size] * scale;
  return roomFor(scene, stage, object.position.depth, reach);
}

function moveAlone(
  object: SceneObject,
  motion: Motion,
  room: Room,
  time: number,
  seconds: number,
): ObjectState {
  const radius = radii[object.size];
  const { base, reach } = geometries[object.shape];
  const p = time / seconds;
  const rest = restState(object, room);
  const standing = room.ground - base * radius;
  const level = (height: number) => mix(standing, Math.min(room.top, standing), height);
  switch (motion.kind) {
    case 'slide': {
      const x = slideX(object, room, motion.direction, p);
      // A ball or a ring on the ground rolls without slipping.
      const rolls = (object.shape === 'ball' || object.shape === 'ring') && object.position.height < 0.05;
      return { ...rest, x, angle: rolls ? (x - rest.x) / (radius * base) : 0 };
    }
    case 'bounce': {
      const cycle = wrap(time / periods.bounce[motion.pace] + motion.phase, 1);
      const { lift, scaleX, scaleY } = bounceAt(cycle);
      const x = motion.direction === 'in place' ? rest.x : slideX(object, room, motion.direction, p);
      // The foot stays on the ground while the body gives.
      const foot = base * radius * (1 - scaleY) * (1 - lift);
      return { ...rest, x, y: level(object.position.height * lift) + foot, scaleX, scaleY };
    }
    case 'orbit': {
      const angle =
        turnSign[motion.turn] * 2 * Math.PI * (time / periods.orbit[motion.pace]) +
        2 * Math.PI * motion.phase;
      const width = Math.min(0.48, room.halfWidth);
      const height = Math.min(0.85 * width, 0.5 * (standing - room.top));
      const centreX = clamp(rest.x, -room.halfWidth + width, room.halfWidth - width);
      const centreY = clamp(rest.y, room.top + height, standing - height);
      return { ...rest, x: centreX + width * Math.cos(angle), y: centreY + height * Math.sin(angle) };
    }
    case 'grow':
    case 'shrink': {
      const end = motion.kind === 'grow' ? growth : dwindling;
      const size = radius * mix(1, end, smooth(clamp(p, 0, 1)));
      const foot = room.ground - base * size;
      return { ...rest, radius: size, y: mix(foot, Math.min(room.top, foot), object.position.height) };
    }
    case 'spin': {
      const turn = time / periods.spin[motion.pace] + motion.phase;
      const y = Math.min(rest.y, room.ground - reach * radius);
      return { ...rest, y, angle: turnSign[motion.turn] * 2 * Math.PI * turn };
    }
    case 'fall': {
      const end = Math.min(fallShare * seconds, longestFall);
      const falling = clamp(time / end, 0, 1);
      const settle = clamp((time - end) / 0.3, 0, 1);
      const give = time > end ? Math.sin(Math.PI * settle) * (1 - settle) * 0.36 : 0;
      const speed = time > end ? 0 : falling;
      const scaleY = 1 - give + 0.1 * speed * speed;
      const y = level(object.position.height * (1 - falling * falling));
      return { ...rest, y: y + base * radius * give, scaleX: 1 / scaleY, scaleY };
    }
    case 'rise':
      return { ...rest, y: level(object.position.height * smooth(clamp(p, 0, 1))) };
    case 'blink': {
      // On for 0.58 of the period, with short fades.
      const cycle = wrap(time / periods.blink[motion.pace] + motion.phase, 1);
      const off = Math.abs(cycle - 0.5) * 2;
      return { ...rest, opacity: smooth(clamp((off - 0.42) / 0.1 + 0.5, 0, 1)) };
    }
    case 'still':
    case 'follow':
      return rest;
  }
}

/** An object where it begins, at rest. */
function restState(object: SceneObject, room: Room): ObjectState {
  const radius = radii[object.size];
  const standing = room.ground - geometries[object.shape].base * radius;
  return {
    x: xAt(room, object.position),
    y: mix(standing, Math.min(room.top, standing), object.position.height),
    radius,
    scaleX: 1,
    scaleY: 1,
    angle: 0,
    opacity: 1,
    ground: room.ground,
  };
}

function slideX(object: SceneObject, room: Room, direction: Direction, p: number): number {
  return room.halfWidth * mix(object.position.x, farEnd * sign(direction), p);
}

/** Height (0 to 1) and stretch in a cycle that begins as the object leaves the ground. */
function bounceAt(cycle: number): { lift: number; scaleX: number; scaleY: number } {
  const flight = 1 - contactShare;
  if (cycle < flight) {
    const q = cycle / flight;
    const speed = Math.abs(1 - 2 * q);
    const scaleY = 1 + 0.1 * speed * speed * Math.min(1, 8 * q * (1 - q) + 0.2);
    return { lift: 4 * q * (1 - q), scaleX: 1 / scaleY, scaleY };
  }
  const give = 0.3 * Math.sin((Math.PI * (cycle - flight)) / contactShare);
  return { lift: 0, scaleX: 1 + 0.75 * give, scaleY: 1 - give };
}

/** The follower does what the leader did a little earlier, with its own size. */
function followerState(
  scene: Scene,
  stage: Stage,
  object: SceneObject,
  target: number,
  time: number,
): ObjectState {
  const leader = objectAt(scene, target);
  const room = roomOf(scene, stage, leader);
  const gap =
    geometries[leader.shape].reach * radii[leader.size] +
    geometries[object.shape].reach * radii[object.size] +
    0.04;
  const stand = { ...object, position: leader.position };
  const lag = lagBehind(leader, room, gap, scene.seconds);
  return moveAlone(stand, leader.motion, { ...room, ground: room.ground }, time - lag, scene.seconds);
}

/** Seconds after which a leader has left `gap` behind it. */
function lagBehind(leader: SceneObject, room: Room, gap: number, seconds: number): number {
  const { motion } = leader;
  if (motion.kind === 'orbit') {
    const width = Math.min(0.48, room.halfWidth);
    const arc = 2 * Math.asin(Math.min(0.9, (0.55 * gap) / Math.max(width, 1e-6)));
    return (periods.orbit[motion.pace] * arc) / (2 * Math.PI);
  }
  if ((motion.kind === 'slide' || motion.kind === 'bounce') && motion.direction !== 'in place') {
    const travel = Math.abs(
      slideX(leader, room, motion.direction, 1) - slideX(leader, room, motion.direction, 0),
    );
    return (gap / Math.max(travel, 1e-6)) * seconds;
  }
  return 0;
}

/** Round another object: in front of it on the lower half of the ellipse, behind it on the upper half. */
function satelliteState(
  scene: Scene,
  stage: Stage,
  object: SceneObject,
  around: number,
  time: number,
): ObjectState {
  const { motion } = object;
  const centre = objectState(scene, stage, around, time);
  const radius = radii[object.size];
  const { base, reach } = geometries[object.shape];
  const clearance = geometries[objectAt(scene, around).shape].reach * centre.radius + reach * radius + 0.06;
  const turn = motion.kind === 'orbit' ? motion : undefined;
  const angle =
    turn === undefined
      ? 0
      : 2 * Math.PI * (turnSign[turn.turn] * (time / periods.orbit[turn.pace]) + turn.phase);
  const swing = 0.34 * clearance * Math.sin(angle);
  const room = roomFor(scene, stage, object.position.depth, reach * radius);
  const x = clamp(centre.x + clearance * Math.cos(angle), -room.halfWidth, room.halfWidth);
  const ground = centre.ground + 0.5 * swing;
  const y = Math.min(centre.y + swing, Math.max(room.ground, ground) - base * radius);
  return { x, y, radius, scaleX: 1, scaleY: 1, angle: 0, opacity: centre.opacity, ground };
}

function objectAt(scene: Scene, index: number): SceneObject {
  const object = scene.objects[index];
  if (object === undefined) throw new RangeError(`object ${index} of a scene of ${scene.objects.length}`);
  return object;
}
