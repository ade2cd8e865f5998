import { randomBytes } from 'node:crypto';
import { lstatSync, type Stats } from 'node:fs';
import { access, constants, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { UserError } from './errors.ts';

/** How {@link writeAtomically} may replace what stands there. */
export interface AtomicOptions {
  /**
   * Set when `write` makes a folder: the name of a file that marks a folder of this kind. An existing folder is replaced
   * only when it has one.
   */
  readonly folderMark?: string;
}

/**
 * Puts a file, or a folder, under its name only when it is complete: `write` fills a temporary name in the same folder,
 * which is flushed to disk and renamed, and the rename is flushed too. Whatever fails, nothing partial stays behind
 * under any name; a killed process can leave a file `.zoetrope-*.tmp`.
 *
 * @param path an existing regular file is replaced (a folder only as {@link AtomicOptions} say); anything else that
 * stands there, a symbolic link included, is refused before `write` is called, because replacing it would surprise.
 * @param write makes a new file (or folder) of the name it is given; inside a folder it flushes the files itself.
 * Its errors pass through.
 * @returns bytes of the file, or of the folder's files together.
 * @throws UserError naming `path`.
 */
export async function writeAtomically(
  path: string,
  write: (temporary: string) => Promise<void>,
  { folderMark }: AtomicOptions = {},
): Promise<number> {
  const target = resolve(path);
  const parent = dirname(target);
  checkPlace(path, target, folderMark);
  const unique = randomBytes(6).toString('hex');
  const temporary = join(parent, `.zoetrope-${basename(target).slice(0, 100)}.${unique}.tmp`);
  try {
    await write(temporary);
    return await attemptWrite(path, async () => {
      const bytes = await bytesOf(temporary, folderMark !== undefined);
      await flush(temporary, folderMark !== undefined);
      if (folderMark !== undefined) await rm(target, { recursive: true, force: true });
      await rename(temporary, target);
      await flush(parent, true);
      return bytes;
    });
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

/**
 * Writes a file of which all is in memory, wholly or not at all; see {@link writeAtomically}.
 *
 * @throws UserError when it cannot be written; nothing is left behind.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  await writeAtomically(path, (temporary) => attemptWrite(path, () => writeFile(temporary, data)));
}

/**
 * Refuses a place where a file cannot be written, before the work that would fill it.
 *
 * @throws UserError when the folder does not exist or may not be written to, or something else has the file's name.
 */
export async function checkWritable(path: string): Promise<void> {
  const target = resolve(path);
  checkPlace(path, target, undefined);
  await attemptWrite(path, () => access(dirname(target), constants.W_OK));
}

/**
 * Runs an operation that writes for the file `path`; an error of the system becomes one line that says what is wrong.
 *
 * @throws UserError; errors that are not the system's pass through.
 */
export async function attemptWrite<T>(path: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    const reason = diskProblem(error);
    throw reason === undefined
      ? error
      : new UserError(`${path}: cannot be written: ${reason}`, { cause: error });
  }
}

const forbidden = 'no permission to write there; choose another place';

const problems: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full; make room or choose another place',
  EDQUOT: 'the disk quota is used up; make room or choose another place',
  EACCES: forbidden,
  EPERM: forbidden,
  EROFS: 'the file system is read-only; choose another place',
  ENOENT: 'the folder does not exist; create it first',
  ENOTDIR: 'a part of the path is a file, not a folder; check the path',
  EISDIR: 'it is a folder; give the path of a file',
  ENAMETOOLONG: 'the name is too long; choose a shorter one',
  EFBIG: 'the file is larger than the system allows; choose another place',
  EIO: 'the disk reports an error; choose another place',
};

/** What an error of the system means for the one who wanted to write, and what to do; undefined for other errors. */
export function diskProblem(error: unknown): string | undefined {
  const { code, syscall } = error as { code?: unknown; syscall?: unknown };
  if (typeof code !== 'string') return undefined;
  return problems[code] ?? (syscall === undefined ? undefined : `${code}; choose another place`);
}

function checkPlace(path: string, target: string, folderMark: string | undefined): void {
  const refuse = (why: string): never => {
    throw new UserError(`${path}: cannot be written: ${why}`);
  };
  const parent = dirname(target);
  const place = statusOf(path, parent);
  if (!place?.isDirectory() && !place?.isSymbolicLink()) {
    refuse(`there is no folder ${parent}; create it first`);
  }
  const there = statusOf(path, target);
  if (!there) return;
  const inTheWay = (what: string) => refuse(`${what} stands there; remove it or choose another name`);
  if (there.isSymbolicLink()) inTheWay('a symbolic link');
  if (there.isDirectory()) {
    if (folderMark === undefined) inTheWay('a folder');
    else if (!statusOf(path, join(target, folderMark))?.isFile()) inTheWay(`a folder without ${folderMark}`);
  } else if (folderMark !== undefined || !there.isFile()) {
    inTheWay(there.isFile() ? 'a file' : 'a device or pipe');
  }
}

/** Status of what has a name; undefined when nothing has. */
function statusOf(path: string, name: string): Stats | undefined {
  try {
    return lstatSync(name, { throwIfNoEntry: false });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined;
    throw new UserError(`${path}: cannot be written: ${diskProblem(error) ?? String(error)}`);
  }
}

async function bytesOf(path: string, folder: boolean): Promise<number> {
  if (!folder) return (await stat(path)).size;
  const names = await readdir(path);
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(path, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function flush(path: string, folder: boolean): Promise<void> {
  // Windows cannot open a folder; there the rename alone has to do.
  if (folder && process.platform === 'win32') return;
  await using file = await open(path, folder ? 'r' : 'r+');
  await file.sync();
}
