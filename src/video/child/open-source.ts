import { closeSync, lstatSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { UserError } from '../../errors.ts';
import { requireFfmpeg } from '../ffmpeg-package.ts';
import { loadFfmpeg } from './ffmpeg.ts';
import { FolderSource } from './folder-source.ts';
import type { OpenAsk } from './protocol.ts';
import type { FrameSource } from './source.ts';
import { StillSource } from './still-source.ts';

/** A source and what the file was like when it was opened. */
export interface OpenedFile {
  readonly source: FrameSource;
  /** @throws UserError when the file has changed since it was opened. */
  checkUnchanged(): void;
}

/**
 * Opens a file by what is in it, never by its name, or a folder of pictures.
 *
 * @throws UserError for anything else: FIFOs and devices (which are not opened at all), playlists, empty files.
 */
export async function openSource(ask: OpenAsk): Promise<OpenedFile> {
  const before = status(ask.path);
  if (before.isDirectory()) {
    const source = await FolderSource.open(ask, readdirSync(ask.path));
    return { source, checkUnchanged: () => {} };
  }
  if (!before.isFile())
    throw new UserError(`${ask.path}: not a regular file; give a media file or a folder of pictures`);
  if (before.size === 0) throw new UserError(`${ask.path}: the file is empty; write or copy it again`);
  const kind = sniff(ask.path, head(ask.path));
  const source =
    kind === 'still' ? await StillSource.open(ask, before.size) : await openContainer(ask, before.size);
  const checkUnchanged = (): void => {
    const after = status(ask.path);
    if (after.size === before.size && after.mtimeMs === before.mtimeMs && after.ino === before.ino) return;
    throw new UserError(
      `${ask.path}: changed while it was read (${before.size} bytes, then ${after.size}); wait until it is complete`,
    );
  };
  return { source, checkUnchanged };
}

async function openContainer(ask: OpenAsk, bytes: number): Promise<FrameSource> {
  requireFfmpeg(ask.path, ', or give a folder of pictures');
  const { AvSource } = await loadFfmpeg();
  return new AvSource(ask, bytes);
}

function status(path: string) {
  try {
    return statSync(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' && isLink(path))
      throw new UserError(`${path}: symbolic link to nothing; mend or remove it`);
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new UserError(`${path}: no such file; check the path`);
    if (code === 'ELOOP')
      throw new UserError(`${path}: symbolic link that leads to itself; mend or remove it`);
    throw new UserError(`${path}: cannot be read (${code ?? String(error)}); check its permissions`);
  }
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

function head(path: string): Buffer {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new UserError(`${path}: cannot be opened (${code ?? String(error)}); check its permissions`);
  }
  try {
    const bytes = Buffer.alloc(4096);
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(file);
  }
}

function sniff(path: string, bytes: Buffer): 'still' | 'container' {
  const ascii = bytes.toString('latin1');
  if (/^(\uFEFF|\xEF\xBB\xBF)?\s*(#EXTM3U|ffconcat|\[playlist\]|<\?xml|<MPD|<smil|<svg|<asx)/i.test(ascii)) {
    throw new UserError(
      `${path}: text that refers to other files (playlist or drawing); give the media files themselves`,
    );
  }
  if (ascii.startsWith('\x89PNG'))
    return /acTL/.test(ascii.split('IDAT', 1)[0] ?? '') ? 'container' : 'still';
  if (ascii.startsWith('RIFF') && ascii.slice(8, 12) === 'WEBP') {
    const animated = ascii.slice(12, 16) === 'VP8X' && ((bytes[20] ?? 0) & 0x02) !== 0;
    return animated ? 'container' : 'still';
  }
  const still =
    ascii.startsWith('\xFF\xD8\xFF') || /^(II\*\0|MM\0\*)/.test(ascii) || ascii.slice(4, 12) === 'ftypavif';
  return still ? 'still' : 'container';
}
