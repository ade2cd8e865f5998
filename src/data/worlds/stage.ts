import type { Camera, Position, Scene, Size } from './scene.ts';

/**
 * The room a scene has in a frame, in stage units: the shorter side of the frame is 2 units, the origin is its centre,
 * x runs right and y down. Everything lies above or on a ground that meets the sky at the horizon.
 */
export interface Stage {
  /** Half the frame's width, at least 1. */
  readonly halfWidth: number;
  /** Half the frame's height, at least 1. */
  readonly halfHeight: number;
  /** y of the horizon. */
  readonly horizon: number;
}

/** The stage of a frame of `width` by `height` (any unit). */
export function stageFor(width: number, height: number): Stage {
  const short = Math.min(width, height);
  const halfHeight = height / short;
  return { halfWidth: width / short, halfHeight, horizon: 0.14 * halfHeight };
}

/** Radius of objects of each size, in stage units. */
export const radii: { readonly [S in Size]: number } = { small: 0.18, medium: 0.265, large: 0.38 };

/** How much nearer a zoom comes: its strongest magnification. */
export const zoomFactor = 1.3;
/** How far a pan travels, in stage units at the front of the stage. */
export const panTravel = 0.4;
const shakeReach = 0.035;

/** What the camera does to the picture at one time. */
export interface CameraState {
  /** Magnification about the centre of the frame, at least 1. */
  readonly zoom: number;
  /** How far the camera has moved right; a layer of parallax p moves left by p times it. */
  readonly pan: number;
  /** Where the centre of the frame is, from shaking. */
  readonly shakeX: number;
  readonly shakeY: number;
}

/** The camera at `time` seconds of a scene of `seconds`. */
export function cameraAt(camera: Camera, time: number, seconds: number): CameraState {
  const p = Math.min(1, Math.max(0, time / seconds));
  const eased = 0.6 * p + 0.4 * p * p * (3 - 2 * p);
  const calm = { zoom: 1, pan: 0, shakeX: 0, shakeY: 0 };
  switch (camera.kind) {
    case 'still':
      return calm;
    case 'pan':
      return { ...calm, pan: (camera.direction === 'right' ? 1 : -1) * panTravel * (eased - 0.5) };
    case 'zoom':
      return { ...calm, zoom: zoomFactor ** (camera.direction === 'in' ? eased : 1 - eased) };
    case 'shake': {
      // Sums of incommensurable sines: irregular, but the same at any frame rate.
      const x = 0.6 * Math.sin(29.3 * time) + 0.4 * Math.sin(47.1 * time + 1);
      const y = 0.6 * Math.sin(33.7 * time + 2) + 0.4 * Math.sin(53.9 * time);
      return { ...calm, shakeX: shakeReach * x, shakeY: shakeReach * y };
    }
  }
}

/** How much of a pan a ground row at `y` takes part in: little at the horizon, all of it at the front. */
export function parallaxAt(stage: Stage, y: number): number {
  const near = (y - stage.horizon) / (stage.halfHeight - stage.horizon);
  return 0.25 + 0.75 * Math.min(1, Math.max(0, near));
}

/** The part of the stage where an object may be without leaving the frame, whatever the camera does. */
export interface Room {
  /** Largest |x| of the object's centre. */
  readonly halfWidth: number;
  /** y of the ground on which the object stands, or over which it hangs. */
  readonly ground: number;
  /** Least y of the object's centre. */
  readonly top: number;
}

/** The room for an object of which nothing is further than `reach` from its centre, at a depth from 0 to 1. */
export function roomFor(scene: Pick<Scene, 'camera'>, stage: Stage, depth: number, reach: number): Room {
  const { kind } = scene.camera;
  const zoom = kind === 'zoom' ? zoomFactor : 1;
  const sway = kind === 'pan' ? panTravel / 2 : kind === 'shake' ? shakeReach : 0;
  const shake = kind === 'shake' ? shakeReach : 0;
  const bottom = stage.halfHeight / zoom - shake;
  const back = stage.horizon + 0.3 * (bottom - stage.horizon);
  const front = bottom - 0.09;
  return {
    halfWidth: Math.max(0, stage.halfWidth / zoom - sway - reach - 0.05),
    ground: back + (front - back) * depth,
    top: -bottom + reach + 0.05,
  };
}

/** x of a position in a room. */
export function xAt(room: Room, position: Position): number {
  return room.halfWidth * position.x;
}
