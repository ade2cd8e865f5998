import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { diskProblem } from '../../atomic-file.ts';
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

/** An error while writing as one line naming the file; errors that are not about the disk are given back as they are. */
export function writeError(name: string, error: unknown): Error {
  if (error instanceof UserError) return error;
  const known = error instanceof Error ? error : new Error(String(error));
  const problem = diskProblem(known) ?? diskProblem({ code: ffmpegCode(known.message) });
  return problem === undefined ? known : new UserError(`${name}: cannot be written: ${problem}`);
}

/** FFmpeg tells the system's errors by their text alone. */
function ffmpegCode(message: string): string | undefined {
  if (/no space left/i.test(message)) return 'ENOSPC';
  if (/permission denied/i.test(message)) return 'EACCES';
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
