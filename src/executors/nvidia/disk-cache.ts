import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A folder in place of `~/.cache/zoetrope`. */
export const cacheVariable = 'ZOETROPE_CACHE';

/** What took time to find, in files named by what it depends on. */
export class DiskCache {
  private readonly folder: string;
  private readonly extension: string;

  /** @param name the folder's, in the cache of this user. @param extension of its files. */
  constructor(name: string, extension: string) {
    this.folder = join(process.env[cacheVariable] ?? join(homedir(), '.cache', 'zoetrope'), name);
    this.extension = extension;
  }

  /** What was kept under a key; undefined when nothing was. */
  read(key: string): Uint8Array | undefined {
    try {
      return readFileSync(this.fileOf(key));
    } catch {
      return undefined;
    }
  }

  /** Keeps a value. A cache that cannot be written costs time, not the run. */
  write(key: string, value: Uint8Array): void {
    const file = this.fileOf(key);
    try {
      mkdirSync(this.folder, { recursive: true });
      const temporary = `${file}.${process.pid}.tmp`;
      writeFileSync(temporary, value);
      renameSync(temporary, file);
    } catch {
      return;
    }
  }

  private fileOf(key: string): string {
    return join(this.folder, `${createHash('sha256').update(key).digest('hex')}.${this.extension}`);
  }
}
