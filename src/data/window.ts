import { readFile, stat } from 'node:fs/promises';
import { UserError } from '../errors.ts';

/** What a recipe takes from clips: the windows of frames that training sees. */
export type WindowSpec = {
  /** Most frames in a window: 1 more than a multiple of `stride.time`. 1 means stills only. */
  readonly maxFrames: number;
  /** Shortest window of a video, in seconds; stills are exempt. */
  readonly minSeconds: number;
  /**
   * Frames per second, or `native`: every clip at its own rate. Faster clips are re-timed to a rate, by leaving out
   * frames; slower ones keep their own, since repeated frames would teach a model to stutter.
   */
  readonly rate: number | 'native';
  /** Most pixels in a frame. Larger clips are scaled down at their own aspect ratio; none is scaled up. */
  readonly maxPixels: number;
  /** Windows have `1 + k * time` frames and sides that are multiples of `space` pixels. */
  readonly stride: { readonly time: number; readonly space: number };
};

/** The windows of a small model: up to 97 frames (4 s at 24 fps) of 256x256 pixels, patches of 16 pixels. */
export const defaultWindow: WindowSpec = {
  maxFrames: 97,
  minSeconds: 0.5,
  rate: 'native',
  maxPixels: 65_536,
  stride: { time: 4, space: 16 },
};

/** Bytes that a recipe file may have. */
const recipeBytes = 1_048_576;

/**
 * Reads the `window` of a recipe, a JSON file such as
 * `{"window": {"maxFrames": 33, "rate": 16, "maxPixels": 36864}}`; what it leaves out is as in {@link defaultWindow}.
 *
 * @throws UserError one line naming the file and the value that is wrong.
 */
export async function readRecipeWindow(path: string): Promise<WindowSpec> {
  const { size } = await stat(path).catch(() => {
    throw new UserError(`${path}: no such recipe; give a JSON file with a "window"`);
  });
  if (size > recipeBytes) throw new UserError(`${path}: a recipe of ${size} bytes; at most ${recipeBytes}`);
  let recipe: unknown;
  try {
    recipe = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new UserError(
      `${path}: not JSON (${error instanceof Error ? firstLine(error.message) : error}); give a file such as {"window": {"maxFrames": 33}}`,
    );
  }
  if (!isObject(recipe) || !('window' in recipe)) {
    throw new UserError(`${path}: has no "window"; write {"window": {"maxFrames": 33, "rate": 16}}`);
  }
  return checkWindow(recipe.window, `${path}: window`);
}

/**
 * Checks the settings of a window, filling in {@link defaultWindow}.
 *
 * @param at begins the messages.
 * @throws UserError for an unknown setting or a value out of range.
 */
export function checkWindow(value: unknown, at: string): WindowSpec {
  const fields = checkFields(value, at, Object.keys(defaultWindow));
  const stride = checkFields(fields.stride ?? {}, `${at}.stride`, Object.keys(defaultWindow.stride));
  const { rate = 'native' } = fields;
  const spec: WindowSpec = {
    maxFrames: whole(fields, at, 'maxFrames', defaultWindow.maxFrames, 100_000),
    minSeconds: inRange(fields.minSeconds ?? defaultWindow.minSeconds, `${at}.minSeconds`, 0, 3600),
    rate: rate === 'native' ? rate : inRange(rate, `${at}.rate`, 0.1, 1000, " or 'native'"),
    maxPixels: whole(fields, at, 'maxPixels', defaultWindow.maxPixels, 2 ** 26),
    stride: {
      time: whole(stride, `${at}.stride`, 'time', defaultWindow.stride.time, 1024),
      space: whole(stride, `${at}.stride`, 'space', defaultWindow.stride.space, 1024),
    },
  };
  const valid = floorFrames(spec.maxFrames, spec);
  if (valid !== spec.maxFrames) {
    throw new UserError(
      `${at}.maxFrames: ${spec.maxFrames} is not 1 more than a multiple of ${spec.stride.time}; ` +
        `use ${valid} or ${valid + spec.stride.time}`,
    );
  }
  if (spec.maxPixels < spec.stride.space ** 2) {
    throw new UserError(
      `${at}.maxPixels: ${spec.maxPixels} is less than one patch of ${spec.stride.space}x${spec.stride.space}; raise it`,
    );
  }
  return spec;
}

/** The most frames, at most `frames`, that a window can have: `1 + k * stride.time`; 0 when `frames` is below 1. */
export function floorFrames(frames: number, spec: Pick<WindowSpec, 'stride'>): number {
  return frames < 1 ? 0 : frames - ((frames - 1) % spec.stride.time);
}

type Fields = Readonly<Record<string, unknown>>;

function checkFields(value: unknown, at: string, known: readonly string[]): Fields {
  if (!isObject(value)) throw new UserError(`${at}: must be an object with ${known.join(', ')}`);
  const stray = Object.keys(value).find((key) => !known.includes(key));
  if (stray !== undefined) throw new UserError(`${at}: unknown setting '${stray}'; use ${known.join(', ')}`);
  return value;
}

function whole(fields: Fields, at: string, name: string, fallback: number, max: number): number {
  const value = inRange(fields[name] ?? fallback, `${at}.${name}`, 1, max);
  if (!Number.isInteger(value)) throw new UserError(`${at}.${name}: must be a whole number, got ${value}`);
  return value;
}

function inRange(value: unknown, at: string, min: number, max: number, also = ''): number {
  if (typeof value === 'number' && value >= min && value <= max) return value;
  throw new UserError(`${at}: must be a number from ${min} to ${max}${also}, got ${JSON.stringify(value)}`);
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}
