import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../errors.ts';
import { type FrameFolderIndex, folderIndexName, parseFolderIndex } from '../frame-folder.ts';
import type { MediaInfo } from '../media-info.ts';
import { checkPixels } from './limits.ts';
import type { OpenAsk } from './protocol.ts';
import type { FrameSource, SourceFrame, SourceTally } from './source.ts';
import { stillInfo, stillPixels, wholeTally } from './still-source.ts';

const mostPictures = 1_000_000;

/** A folder of pictures of one size, in order of their names; times from `frames.json`, or 24 a second without it. */
export class FolderSource implements FrameSource {
  readonly info: MediaInfo;
  readonly #ask: OpenAsk;
  readonly #paths: readonly string[];
  readonly #index: FrameFolderIndex;
  #at = 0;

  private constructor(ask: OpenAsk, paths: readonly string[], index: FrameFolderIndex, info: MediaInfo) {
    this.#ask = ask;
    this.#paths = paths;
    this.#index = index;
    this.info = info;
  }

  /** @throws UserError when there are no pictures, or the index or the first picture cannot be read. */
  static async open(ask: OpenAsk, names: readonly string[]): Promise<FolderSource> {
    const order = new Intl.Collator('en', { numeric: true });
    const pictures = names.filter((name) => /\.(png|jpe?g|webp)$/i.test(name)).sort(order.compare);
    const paths = pictures.map((name) => join(ask.path, name));
    const [first] = paths;
    if (!first)
      throw new UserError(`${ask.path}: a folder without PNG, JPEG or WebP pictures; give a media file`);
    if (paths.length > mostPictures)
      throw new UserError(`${ask.path}: more than ${mostPictures} pictures; split the folder`);
    const index = names.includes(folderIndexName)
      ? parseFolderIndex(readText(join(ask.path, folderIndexName)), join(ask.path, folderIndexName))
      : { rate: 24, timestamps: paths.map((_, i) => i / 24) };
    const sizes = paths.map((path) => statRegular(path));
    const picture = await stillInfo(ask, first, sizes[0] ?? 0);
    const info: MediaInfo = {
      ...picture,
      format: 'folder',
      rate: index.rate,
      frames: index.timestamps.length,
      duration: (index.timestamps.at(-1) ?? 0) + 1 / index.rate,
      still: false,
      bytes: sizes.reduce((sum, size) => sum + size, 0),
    };
    checkPixels(ask, info);
    return new FolderSource(ask, paths, index, info);
  }

  async next(): Promise<SourceFrame | undefined> {
    const at = this.#at;
    const path = this.#paths[at];
    const time = this.#index.timestamps[at];
    if (path === undefined || time === undefined) return undefined;
    this.#at++;
    let pixels: Promise<Uint8Array> | undefined;
    return {
      time,
      duration: (this.#index.timestamps[at + 1] ?? time + 1 / this.#index.rate) - time,
      pixels: () => {
        pixels ??= this.#pixels(path);
        return pixels;
      },
      free: () => {},
    };
  }

  tally(): SourceTally {
    const lastEnd = (this.#index.timestamps[this.#at - 1] ?? 0) + 1 / this.#index.rate;
    return wholeTally({
      frames: this.#at,
      claimed: this.#index.timestamps.length,
      lastEnd,
      rate: this.#index.rate,
    });
  }

  close(): void {}

  async #pixels(path: string): Promise<Uint8Array> {
    const { width, height } = await stillInfo(this.#ask, path, 0);
    if (width !== this.info.width || height !== this.info.height) {
      throw new UserError(
        `${path}: ${width}x${height} in a folder of ${this.info.width}x${this.info.height} pictures; make them one size`,
      );
    }
    return await stillPixels(this.#ask, path, this.info);
  }
}

function statRegular(path: string): number {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status?.isFile())
    throw new UserError(`${path}: not a regular file; remove it from the folder of pictures`);
  return status.size;
}

function readText(path: string): string {
  if (statRegular(path) > 2 ** 26) throw new UserError(`${path}: larger than 64 MB; write the folder again`);
  return readFileSync(path, 'utf8');
}
