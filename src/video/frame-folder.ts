import { UserError } from '../errors.ts';

/** Name of the index in a folder of frames. */
export const folderIndexName = 'frames.json';

/** When the pictures of a folder, in order of their names, appear. */
export interface FrameFolderIndex {
  /** Frames per second. */
  readonly rate: number;
  /** Seconds, one for each picture, strictly ascending from 0 or more. */
  readonly timestamps: readonly number[];
}

/** Name of the picture of frame `index`: `000000.png` onwards. */
export function pictureName(index: number): string {
  return `${String(index).padStart(6, '0')}.png`;
}

/** Reads a `frames.json`. @throws UserError naming `path` when it is not one. */
export function parseFolderIndex(text: string, path: string): FrameFolderIndex {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UserError(`${path}: not valid JSON; write the folder again or remove the index`);
  }
  const { rate, timestamps } = (value ?? {}) as { rate?: unknown; timestamps?: unknown };
  if (typeof rate !== 'number' || !(rate > 0))
    throw new UserError(`${path}: "rate" must be a number above 0`);
  const ascending =
    Array.isArray(timestamps) &&
    timestamps.length > 0 &&
    timestamps.every(
      (time, i) => typeof time === 'number' && time >= 0 && (i === 0 || time > timestamps[i - 1]),
    );
  if (!ascending)
    throw new UserError(`${path}: "timestamps" must be seconds in ascending order, one for each picture`);
  return { rate, timestamps: timestamps as number[] };
}
