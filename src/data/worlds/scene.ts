/**
 * The scene language of procedural worlds: a few objects that move over a background, seen by a camera.
 *
 * A scene says nothing of pixels: it is laid out anew for every frame size (`stage.ts`), so one scene can be shown in
 * any aspect ratio. It is plain JSON; `parse-scene.ts` checks scenes that come from elsewhere.
 */

/** Shapes an object can have. */
export const shapes = [
  'ball',
  'cube',
  'cylinder',
  'cone',
  'star',
  'heart',
  'ring',
  'diamond',
  'capsule',
  'cross',
] as const;
/** One of {@link shapes}. */
export type Shape = (typeof shapes)[number];

/** Colours an object can have. */
export const colours = [
  'red',
  'orange',
  'yellow',
  'green',
  'cyan',
  'blue',
  'purple',
  'pink',
  'white',
  'black',
] as const;
/** One of {@link colours}. */
export type Colour = (typeof colours)[number];

/** Sizes an object can have. */
export const sizes = ['small', 'medium', 'large'] as const;
/** One of {@link sizes}. */
export type Size = (typeof sizes)[number];

/** Surfaces an object can have: matte, with stripes of a second tone, or glossy. */
export const finishes = ['plain', 'striped', 'shiny'] as const;
/** One of {@link finishes}. */
export type Finish = (typeof finishes)[number];

/** Places a scene can be in. */
export const places = ['meadow', 'sea', 'desert', 'city', 'space'] as const;
/** One of {@link places}. */
export type Place = (typeof places)[number];

/** Times of day. In space it is always night. */
export const times = ['dawn', 'day', 'sunset', 'night'] as const;
/** One of {@link times}. */
export type Time = (typeof times)[number];

/** Weathers. In space it is always clear. */
export const weathers = ['clear', 'rain', 'snow'] as const;
/** One of {@link weathers}. */
export type Weather = (typeof weathers)[number];

/** Kinds of motion. */
export const motionKinds = [
  'still',
  'slide',
  'bounce',
  'orbit',
  'grow',
  'shrink',
  'spin',
  'fall',
  'rise',
  'blink',
  'follow',
] as const;
/** One of {@link motionKinds}. */
export type MotionKind = (typeof motionKinds)[number];

/** Directions along the ground, as seen in the frame. */
export const directions = ['left', 'right'] as const;
/** One of {@link directions}. */
export type Direction = (typeof directions)[number];

/** Senses of rotation, as seen in the frame. */
export const turns = ['clockwise', 'counterclockwise'] as const;
/** One of {@link turns}. */
export type Turn = (typeof turns)[number];

/** Paces of motions that repeat; `motion.ts` has their periods. */
export const paces = ['slow', 'steady', 'fast'] as const;
/** One of {@link paces}. */
export type Pace = (typeof paces)[number];

/**
 * What an object does. Motions without a pace take the whole duration of the scene once; those with a pace repeat.
 * `phase`, in [0, 1), is where in its period a repeating motion is at time 0.
 */
export type Motion =
  /** Rests where it is. */
  | { readonly kind: 'still' }
  /** Moves along the ground (or level in the air) at constant speed; a ball rolls. */
  | { readonly kind: 'slide'; readonly direction: Direction }
  /** Bounces on the ground, up to the object's height, in place or going `direction`. */
  | {
      readonly kind: 'bounce';
      readonly direction: Direction | 'in place';
      readonly pace: Pace;
      readonly phase: number;
    }
  /** Goes round a point in the air, or round the object with index `around` (in front of it, then behind it). */
  | {
      readonly kind: 'orbit';
      readonly turn: Turn;
      readonly around: number | null;
      readonly pace: Pace;
      readonly phase: number;
    }
  /** Swells to nearly twice its size; not for large objects. */
  | { readonly kind: 'grow' }
  /** Dwindles to about half its size; not for small objects. */
  | { readonly kind: 'shrink' }
  /** Turns about its own centre in the plane of the frame. */
  | { readonly kind: 'spin'; readonly turn: Turn; readonly pace: Pace; readonly phase: number }
  /** Drops from its height to the ground and lands. */
  | { readonly kind: 'fall' }
  /** Floats up from the ground to its height. */
  | { readonly kind: 'rise' }
  /** Appears and disappears. */
  | { readonly kind: 'blink'; readonly pace: Pace; readonly phase: number }
  /** Takes the path of the object with index `target`, some way behind it. That one slides, orbits or bounces along. */
  | { readonly kind: 'follow'; readonly target: number };

/** Where an object begins, as fractions of the room that the frame leaves. */
export interface Position {
  /** -1 (left edge) to 1 (right edge). */
  readonly x: number;
  /** 0 (on the ground) to 1 (top of the frame). */
  readonly height: number;
  /** 0 (at the back) to 1 (at the front). */
  readonly depth: number;
}

/** One object of a scene. */
export interface SceneObject {
  readonly shape: Shape;
  readonly colour: Colour;
  /** The size at time 0. */
  readonly size: Size;
  readonly finish: Finish;
  readonly position: Position;
  readonly motion: Motion;
}

/** What the camera does over the scene. */
export type Camera =
  | { readonly kind: 'still' }
  | { readonly kind: 'pan'; readonly direction: Direction }
  | { readonly kind: 'zoom'; readonly direction: 'in' | 'out' }
  | { readonly kind: 'shake' };

/** Kinds of camera motion. */
export const cameraKinds = ['still', 'pan', 'zoom', 'shake'] as const;

/** Where, when and in what weather a scene is. */
export interface Background {
  readonly place: Place;
  readonly time: Time;
  readonly weather: Weather;
}

/** A world: one procedural clip, before it has a frame size and rate. */
export interface Scene {
  /** Duration in seconds, above 0 and at most {@link maxSeconds}. */
  readonly seconds: number;
  readonly background: Background;
  readonly camera: Camera;
  /** 1 to {@link maxObjects} objects. */
  readonly objects: readonly SceneObject[];
  /** Unsigned 32-bit seed of what captions do not mention: hills, clouds, flowers, on which side the sun is. */
  readonly decor: number;
}

/** Most objects in a scene. */
export const maxObjects = 4;

/** Longest scene, in seconds. */
export const maxSeconds = 600;
