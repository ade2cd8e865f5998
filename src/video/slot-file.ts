import { randomBytes } from 'node:crypto';
import { closeSync, openSync, read, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { UserError } from '../errors.ts';

const readFile = promisify(read);

/** A file without a name that two processes share; in memory where the system has a file system for that. */
export class SlotFile {
  /** Its descriptor in this process. */
  readonly file: number;
  #open = true;

  constructor() {
    const name = `zoetrope-${randomBytes(8).toString('hex')}`;
    this.file = createNameless(['/dev/shm', tmpdir()].map((folder) => join(folder, name)));
  }

  /** Its first bytes. Copied outside the main thread. */
  async read(bytes: number): Promise<Uint8Array> {
    const data = Buffer.allocUnsafeSlow(bytes);
    for (let at = 0; at < bytes; ) {
      const { bytesRead } = await readFile(this.file, data, at, bytes - at, at);
      if (bytesRead === 0) throw new Error(`slot holds ${at} bytes instead of ${bytes}`);
      at += bytesRead;
    }
    return new Uint8Array(data.buffer, data.byteOffset, bytes);
  }

  /** Frees it; harmless when done already. */
  close(): void {
    if (this.#open) closeSync(this.file);
    this.#open = false;
  }
}

function createNameless(paths: readonly string[]): number {
  let reason = '';
  for (const path of paths) {
    try {
      const file = openSync(path, 'wx+', 0o600);
      unlinkSync(path);
      return file;
    } catch (error) {
      reason = String((error as NodeJS.ErrnoException).code ?? error);
    }
  }
  throw new UserError(
    `${paths.at(-1)}: temporary file cannot be created (${reason}); make room or set TMPDIR`,
  );
}
