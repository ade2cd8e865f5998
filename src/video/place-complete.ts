import { randomBytes } from 'node:crypto';
import { lstatSync, type Stats } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../errors.ts';
import { folderIndexName } from './frame-folder.ts';

/**
 * Puts a file, or a folder, under its name only when it is complete: `write` fills a temporary name in the same folder,
 * which is then renamed and the rename flushed to disk. Whatever fails, nothing partial stays behind under any name.
 *
 * @param path absolute. An existing regular file is replaced (for `folder`: a folder of frames); anything else that
 * stands there is refused before `write` is called, because replacing it would surprise.
 * @returns bytes of the file, or of the folder's files together.
 * @throws UserError naming `path`.
 */
export async function placeComplete(
  path: string,
  folder: boolean,
  write: (temporary: string) => Promise<void>,
): Promise<number> {
  const parent = dirname(path);
  checkPlace(path, parent, folder);
  const temporary = join(parent, `.${basename(path).slice(0, 100)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    await write(temporary);
    const bytes = await bytesOf(temporary, folder);
    if (folder) await rm(path, { recursive: true, force: true });
    await rename(temporary, path);
    await flushFolder(parent);
    return bytes;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

function checkPlace(path: string, parent: string, folder: boolean): void {
  const place = status(parent);
  if (!place?.isDirectory() && !place?.isSymbolicLink()) {
    throw new UserError(`${path}: cannot be written: there is no folder ${parent}; create it first`);
  }
  const there = status(path);
  if (!there) return;
  const refuse = (what: string): never => {
    throw new UserError(`${path}: cannot be written: ${what} stands there; remove it or choose another name`);
  };
  if (there.isSymbolicLink()) refuse('a symbolic link');
  if (there.isDirectory()) {
    if (!folder) refuse('a folder');
    if (!status(join(path, folderIndexName))?.isFile()) refuse(`a folder without ${folderIndexName}`);
  } else if (folder || !there.isFile()) refuse(folder ? 'a file' : 'a device or pipe');
}

function status(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    if (code === 'ENOTDIR') return undefined;
    throw new UserError(`${path}: cannot be written (${code}); choose another place`);
  }
}

async function bytesOf(path: string, folder: boolean): Promise<number> {
  if (!folder) return (await stat(path)).size;
  const sizes = await Promise.all(
    (await readdir(path)).map(async (name) => (await stat(join(path, name))).size),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function flushFolder(path: string): Promise<void> {
  // Windows cannot open a folder; there the rename alone has to do.
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
