import { UserError } from '../../errors.ts';
import {
  type Background,
  type Camera,
  cameraKinds,
  colours,
  directions,
  finishes,
  type Motion,
  maxObjects,
  maxSeconds,
  motionKinds,
  paces,
  places,
  type Scene,
  type SceneObject,
  shapes,
  sizes,
  times,
  turns,
  weathers,
} from './scene.ts';

/** How far left or right a motion along the ground may begin: further on there is no way left to go. */
const farthestStart = 0.2;

/** The scene as one line of JSON, read back by {@link parseScene}. */
export function serialiseScene(scene: Scene): string {
  return JSON.stringify(scene);
}

/**
 * Reads a scene from JSON text and checks that it can be shown.
 *
 * @throws UserError one line naming the field, when a field is missing, unknown or out of range, or motions contradict.
 */
export function parseScene(text: string): Scene {
  if (text.length > 100_000) throw new UserError('scene: longer than 100,000 characters; give one scene');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UserError('scene: not valid JSON; write it with serialiseScene');
  }
  return checkScene(value);
}

/**
 * Checks a value that claims to be a scene and returns it as one, without anything unknown in it.
 *
 * @throws UserError as {@link parseScene}.
 */
export function checkScene(value: unknown): Scene {
  const fields = record(value, 'scene', ['seconds', 'background', 'camera', 'objects', 'decor']);
  const list = fields.objects;
  if (!Array.isArray(list) || list.length < 1 || list.length > maxObjects) {
    throw new UserError(`scene.objects: must be a list of 1 to ${maxObjects} objects`);
  }
  const objects = list.map((object: unknown, i) => sceneObject(object, `scene.objects[${i}]`));
  const seconds = number(fields.seconds, 'scene.seconds', 0, maxSeconds);
  if (seconds === 0) throw new UserError('scene.seconds: must be above 0');
  const decor = number(fields.decor, 'scene.decor', 0, 2 ** 32 - 1);
  if (!Number.isInteger(decor)) throw new UserError(`scene.decor: ${decor} is not a whole number`);
  for (const [i, object] of objects.entries()) checkMotion(object, i, objects);
  return {
    seconds,
    background: background(fields.background),
    camera: camera(fields.camera),
    objects,
    decor,
  };
}

function background(value: unknown): Background {
  const fields = record(value, 'scene.background', ['place', 'time', 'weather']);
  const found = {
    place: oneOf(places, fields.place, 'scene.background.place'),
    time: oneOf(times, fields.time, 'scene.background.time'),
    weather: oneOf(weathers, fields.weather, 'scene.background.weather'),
  };
  if (found.place === 'space' && (found.time !== 'night' || found.weather !== 'clear')) {
    throw new UserError(
      `scene.background: '${found.time}' with '${found.weather}' in space; use night and clear`,
    );
  }
  return found;
}

function camera(value: unknown): Camera {
  const kind = oneOf(cameraKinds, kindOf(value, 'scene.camera'), 'scene.camera.kind');
  const moves = kind === 'pan' || kind === 'zoom';
  const names = moves ? (['kind', 'direction'] as const) : (['kind'] as const);
  const fields: Partial<Fields<'direction'>> = record(value, 'scene.camera', names);
  const { direction } = fields;
  if (kind === 'pan') return { kind, direction: oneOf(directions, direction, 'scene.camera.direction') };
  if (kind === 'zoom')
    return { kind, direction: oneOf(['in', 'out'] as const, direction, 'scene.camera.direction') };
  return { kind };
}

function sceneObject(value: unknown, at: string): SceneObject {
  const fields = record(value, at, ['shape', 'colour', 'size', 'finish', 'position', 'motion']);
  const position = record(fields.position, `${at}.position`, ['x', 'height', 'depth']);
  return {
    shape: oneOf(shapes, fields.shape, `${at}.shape`),
    colour: oneOf(colours, fields.colour, `${at}.colour`),
    size: oneOf(sizes, fields.size, `${at}.size`),
    finish: oneOf(finishes, fields.finish, `${at}.finish`),
    position: {
      x: number(position.x, `${at}.position.x`, -1, 1),
      height: number(position.height, `${at}.position.height`, 0, 1),
      depth: number(position.depth, `${at}.position.depth`, 0, 1),
    },
    motion: motion(fields.motion, `${at}.motion`),
  };
}

function motion(value: unknown, at: string): Motion {
  const kind = oneOf(motionKinds, kindOf(value, at), `${at}.kind`);
  const read = <K extends string>(...names: K[]) => record(value, at, ['kind', ...names]);
  const pace = (fields: Fields<'pace'>) => oneOf(paces, fields.pace, `${at}.pace`);
  const phase = (fields: Fields<'phase'>) => number(fields.phase, `${at}.phase`, 0, 1);
  const turn = (fields: Fields<'turn'>) => oneOf(turns, fields.turn, `${at}.turn`);
  switch (kind) {
    case 'slide':
      return { kind, direction: oneOf(directions, read('direction').direction, `${at}.direction`) };
    case 'bounce': {
      const fields = read('direction', 'pace', 'phase');
      const ways = [...directions, 'in place'] as const;
      return {
        kind,
        direction: oneOf(ways, fields.direction, `${at}.direction`),
        pace: pace(fields),
        phase: phase(fields),
      };
    }
    case 'orbit': {
      const fields = read('turn', 'around', 'pace', 'phase');
      const around = fields.around === null ? null : index(fields.around, `${at}.around`);
      return { kind, turn: turn(fields), around, pace: pace(fields), phase: phase(fields) };
    }
    case 'spin': {
      const fields = read('turn', 'pace', 'phase');
      return { kind, turn: turn(fields), pace: pace(fields), phase: phase(fields) };
    }
    case 'blink': {
      const fields = read('pace', 'phase');
      return { kind, pace: pace(fields), phase: phase(fields) };
    }
    case 'follow':
      return { kind, target: index(read('target').target, `${at}.target`) };
    case 'still':
    case 'grow':
    case 'shrink':
    case 'fall':
    case 'rise':
      read();
      return { kind };
  }
}

/** What one motion asks of its object and of the others. */
function checkMotion(object: SceneObject, i: number, objects: readonly SceneObject[]): void {
  const { motion, position, size } = object;
  const at = `scene.objects[${i}]`;
  if ((motion.kind === 'slide' || motion.kind === 'bounce') && motion.direction !== 'in place') {
    const ahead = motion.direction === 'right' ? -position.x : position.x;
    if (ahead < -farthestStart) {
      throw new UserError(
        `${at}.position.x: ${position.x} leaves no way to go ${motion.direction}; begin on the other side`,
      );
    }
  }
  const needsHeight = motion.kind === 'bounce' || motion.kind === 'fall' || motion.kind === 'rise';
  if (needsHeight && position.height < 0.3) {
    throw new UserError(
      `${at}.position.height: ${position.height} is too low to ${motion.kind}; use 0.3 or more`,
    );
  }
  if (motion.kind === 'grow' && size === 'large')
    throw new UserError(`${at}: is large and cannot grow; use small or medium`);
  if (motion.kind === 'shrink' && size === 'small')
    throw new UserError(`${at}: is small and cannot shrink; use medium or large`);
  if (motion.kind === 'spin' && object.finish !== 'striped' && looksSameTurned(object)) {
    throw new UserError(`${at}: a ${object.finish} ${object.shape} looks the same turned; make it striped`);
  }
  if (motion.kind === 'orbit' && motion.around !== null) {
    const other = objects[motion.around];
    if (
      other === undefined ||
      other === object ||
      (other.motion.kind !== 'still' && other.motion.kind !== 'spin')
    )
      throw new UserError(
        `${at}.motion.around: ${motion.around} must be another object that is still or spins`,
      );
  }
  if (motion.kind === 'follow') {
    const leader = objects[motion.target];
    if (leader === undefined || leader === object || !canBeFollowed(leader.motion))
      throw new UserError(
        `${at}.motion.target: ${motion.target} must be another object that slides, orbits or bounces along`,
      );
  }
}

/** Whether an object with this motion has a path that another can follow. */
export function canBeFollowed(motion: Motion): boolean {
  if (motion.kind === 'bounce') return motion.direction !== 'in place';
  return motion.kind === 'slide' || (motion.kind === 'orbit' && motion.around === null);
}

function looksSameTurned({ shape }: SceneObject): boolean {
  return shape === 'ball' || shape === 'ring';
}

type Fields<K extends string> = Readonly<Record<K, unknown>>;

function record<K extends string>(value: unknown, at: string, names: readonly K[]): Fields<K> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UserError(`${at}: must be an object with ${names.join(', ')}`);
  }
  const known: readonly string[] = names;
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new UserError(`${at}: unknown field '${unknown.slice(0, 40)}'; known are ${names.join(', ')}`);
  }
  const missing = names.find((name) => !Object.hasOwn(value, name));
  if (missing !== undefined) throw new UserError(`${at}.${missing}: is missing`);
  return value as Fields<K>;
}

function kindOf(value: unknown, at: string): unknown {
  if (typeof value !== 'object' || value === null)
    throw new UserError(`${at}: must be an object with a kind`);
  return 'kind' in value ? value.kind : undefined;
}

function oneOf<T extends string>(allowed: readonly T[], value: unknown, at: string): T {
  const found = allowed.find((word) => word === value);
  if (found === undefined) {
    throw new UserError(`${at}: ${shown(value)} is not one of ${allowed.join(', ')}`);
  }
  return found;
}

function number(value: unknown, at: string, low: number, high: number): number {
  if (typeof value !== 'number' || !(value >= low && value <= high)) {
    throw new UserError(`${at}: ${shown(value)} is not a number from ${low} to ${high}`);
  }
  return value;
}

function index(value: unknown, at: string): number {
  const found = number(value, at, 0, maxObjects - 1);
  if (!Number.isInteger(found)) throw new UserError(`${at}: ${found} is not the index of an object`);
  return found;
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 40);
}
