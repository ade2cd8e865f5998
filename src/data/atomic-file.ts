import { access, constants, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../errors.ts';

/**
 * Refuses a place where a file cannot be written, before the work that would fill it.
 *
 * @throws UserError when the folder does not exist or may not be written to, or a folder has the file's name.
 */
export async function checkWritable(path: string): Promise<void> {
  const folder = dirname(path);
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory() !== true)
    throw new UserError(`${path}: there is no folder ${folder}; make it first`);
  if ((await stat(path).catch(() => undefined))?.isDirectory() === true) {
    throw new UserError(`${path}: is a folder; give the name of a file`);
  }
  await access(folder, constants.W_OK).catch(() => {
    throw new UserError(`${path}: the folder ${folder} may not be written to; choose another`);
  });
}

/**
 * Writes a file wholly or not at all: under a name of its own beside `path` first, then renamed.
 *
 * @throws UserError when it cannot be written; nothing is left behind.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.part`);
  try {
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new UserError(`${path}: cannot be written (${error instanceof Error ? error.message : error})`);
  }
}
