import { access, constants, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { UserError } from '../errors.ts';
import { placeComplete } from '../video/place-complete.ts';

/**
 * Refuses a place where a file cannot be written, before the work that would fill it.
 *
 * @throws UserError when the folder does not exist or may not be written to, or something else has the file's name.
 */
export async function checkWritable(path: string): Promise<void> {
  const folder = dirname(path);
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory() !== true)
    throw new UserError(`${path}: there is no folder ${folder}; make it first`);
  const there = await stat(path).catch(() => undefined);
  if (there?.isFile() === false) throw new UserError(`${path}: is not a file; choose another name`);
  await access(folder, constants.W_OK).catch(() => {
    throw new UserError(`${path}: the folder ${folder} may not be written to; choose another`);
  });
}

/**
 * Writes a file wholly or not at all.
 *
 * @throws UserError when it cannot be written; nothing is left behind.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  try {
    await placeComplete(resolve(path), false, (temporary) => writeFile(temporary, data, { flush: true }));
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${path}: cannot be written (${error instanceof Error ? error.message : error})`);
  }
}
