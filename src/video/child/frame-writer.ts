import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { UserError } from '../../errors.ts';

/** Writes frames of one size to one file (or folder). */
export interface FrameWriter {
  /**
   * @param pixels uint8 [height, width, 3]; valid until the promise settles.
   * @param time seconds since the first frame.
   * @param duration seconds until the next one.
   */
  add(pixels: Uint8Array, time: number, duration: number): Promise<void>;
  /** Completes the file and flushes it to disk. */
  finish(): Promise<void>;
  /** Frees what is held, complete or not. */
  close(): void;
}

const full = 'the disk is full; make room';
const forbidden = 'no permission to write there; choose another place';

const causes: ReadonlyMap<unknown, string> = new Map([
  ['ENOSPC', full],
  ['EDQUOT', 'the disk quota is used up; make room'],
  ['EACCES', forbidden],
  ['EPERM', forbidden],
  ['EROFS', 'the file system is read-only; choose another place'],
  ['ENOENT', 'the folder does not exist; create it first'],
  ['ENOTDIR', 'a part of the path is not a folder; check the path'],
  ['ENAMETOOLONG', 'the name is too long; choose a shorter one'],
  ['EFBIG', 'the file would be too large for its file system; choose another place'],
  ['EIO', 'the disk reports an error; choose another place'],
]);

/** An error while writing as one line naming the file; errors that are not about the disk are given back as they are. */
export function writeError(name: string, error: unknown): Error {
  if (error instanceof UserError) return error;
  const { code, message } = error as { code?: unknown; message?: string };
  const cause = causes.get(code) ?? ffmpegCause(message ?? '');
  if (cause) return new UserError(`${name}: cannot be written: ${cause}`);
  return error instanceof Error ? error : new Error(String(error));
}

function ffmpegCause(message: string): string | undefined {
  if (/no space left/i.test(message)) return full;
  if (/permission denied/i.test(message)) return forbidden;
  return undefined;
}

/** A new file that is written from front to back. */
export class OutputFile {
  readonly #file: number;
  #open = true;

  /** @throws NodeJS.ErrnoException when it exists or cannot be created. */
  constructor(path: string) {
    this.#file = openSync(path, 'wx');
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
  }

  /** Flushes to disk and closes. */
  finish(): void {
    fsyncSync(this.#file);
    this.close();
  }

  close(): void {
    if (this.#open) closeSync(this.#file);
    this.#open = false;
  }
}
