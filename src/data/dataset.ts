import { lstat, readdir, readFile, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { UserError } from '../errors.ts';
import { type Captions, type Clip, type DatasetProblem, manifestLimits, readManifest } from './manifest.ts';

/** The clips of a folder or manifest, in an order that depends on their names and places alone. */
export type Dataset = {
  /** The folder that the files of the clips are relative to: absolute, without symbolic links. */
  readonly root: string;
  readonly clips: readonly Clip[];
  readonly problems: readonly DatasetProblem[];
  /** Files that are neither media nor captions, and hidden ones: what was looked past. */
  readonly ignored: readonly string[];
};

/** Bounds that hold for every folder. */
export const folderLimits = {
  /** Folders below one another. */
  depth: 32,
  /** Files and folders altogether. */
  entries: 4_000_000,
} as const;

const videoEndings: ReadonlySet<string> = new Set(
  'mp4 m4v mov mkv webm avi flv ts mts m2ts ps mpg mpeg 3gp ogv wmv gif'.split(' '),
);
const stillEndings: ReadonlySet<string> = new Set('png jpg jpeg webp avif'.split(' '));
const manifestNames = ['manifest.jsonl', 'captions.jsonl'] as const;

/**
 * Opens a dataset.
 *
 * - A file is a manifest (JSON Lines); its clips are relative to its folder.
 * - A folder with `manifest.jsonl` or `captions.jsonl` in it is that manifest; media that it does not list are a problem.
 * - Any other folder gives its media files in the order of their names, `clip.txt` being the caption of `clip.mp4`,
 *   and then its folders in the same way. A folder of datasets is therefore a dataset.
 *
 * Nothing but manifests and captions is opened. Symbolic links to folders are not followed, and links to files only
 * within the dataset's folder; both are reported.
 *
 * @throws UserError when `path` does not exist or is neither a folder nor a regular file.
 */
export async function openDataset(path: string): Promise<Dataset> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) throw new UserError(`${path}: no such file or folder; check the path`);
  if (!found.isDirectory() && !found.isFile()) {
    throw new UserError(`${path}: is neither a folder nor a file; give a folder of clips or a manifest`);
  }
  if (found.isFile() && (isMedia(path) || !/\.(jsonl|ndjson|json)$/i.test(path))) {
    throw new UserError(`${path}: is not a manifest; give a .jsonl file, or the folder that the clip is in`);
  }
  const root = await realpath(found.isDirectory() ? path : dirname(path));
  const walk = new Walk(root);
  if (found.isDirectory()) await walk.folder('', 0);
  else await walk.manifest('', basename(path));
  return { root, clips: walk.clips, problems: walk.problems, ignored: walk.ignored };
}

/** Whether a file's name ends like a video's or a picture's. */
export function isMedia(file: string): boolean {
  return videoEndings.has(ending(file)) || stillEndings.has(ending(file));
}

/**
 * The absolute path of a clip's file, once it is certain that it may be opened: a regular file, inside the folder even
 * after symbolic links.
 *
 * @throws UserError one line that begins with `file`.
 */
export async function resolveClipFile(root: string, file: string): Promise<string> {
  const path = join(root, file);
  const entry = await lstat(path).catch(() => undefined);
  if (entry === undefined) throw new UserError(`${file}: no such file`);
  const real = await realpath(path).catch(() => undefined);
  if (real === undefined) throw new UserError(`${file}: is a symbolic link to nothing`);
  if (!real.startsWith(root.endsWith(sep) ? root : root + sep)) {
    throw new UserError(`${file}: leads out of the dataset's folder by a symbolic link; not opened`);
  }
  const target = await stat(real);
  if (target.isFile()) return real;
  const kind = target.isDirectory() ? 'a folder' : target.isFIFO() ? 'a pipe (FIFO)' : 'a device or socket';
  throw new UserError(`${file}: is ${kind}, not a file; not opened`);
}

/** One pass over a folder; gathers as it goes. */
class Walk {
  readonly clips: Clip[] = [];
  readonly problems: DatasetProblem[] = [];
  readonly ignored: string[] = [];
  readonly #root: string;
  #entries = 0;

  constructor(root: string) {
    this.#root = root;
  }

  /** `folder` is relative to the root: empty, or ending in `/`. */
  async folder(folder: string, depth: number): Promise<void> {
    const entries = await this.#list(folder, depth);
    const names = new Set(entries.map(({ name }) => name));
    const manifests = manifestNames.filter((name) => names.has(name));
    const [manifest] = manifests;
    const listed = manifest === undefined ? undefined : await this.manifest(folder, manifest);
    for (const second of manifests.slice(1)) {
      this.#warn(folder + second, `not read: ${manifest} is the manifest of this folder`);
    }
    await this.#contents(folder, depth, entries, listed);
  }

  /** Takes in a manifest; gives the files it lists, relative to the root. */
  async manifest(folder: string, name: string): Promise<Set<string>> {
    const { clips, problems, unknownFields } = await readManifest(
      join(this.#root, folder, name),
      folder + name,
    );
    this.problems.push(...problems);
    for (const [field, lines] of unknownFields) {
      this.#warn(folder + name, `field '${field}' (in ${lines} lines) means nothing here and is not used`);
    }
    const listed = new Set<string>();
    for (const clip of clips) {
      const file = folder + clip.file;
      listed.add(file);
      this.clips.push({ ...clip, file });
    }
    return listed;
  }

  async #contents(
    folder: string,
    depth: number,
    entries: readonly Entry[],
    listed: ReadonlySet<string> | undefined,
  ): Promise<void> {
    const folders: string[] = [];
    const names = new Set(entries.map(({ name }) => name));
    for (const { name, kind } of entries) {
      const file = folder + name;
      const isCaption = ending(name) === 'txt' && hasMedia(name, names);
      if (name.startsWith('.')) this.ignored.push(file);
      else if (kind === 'folder' && !isMedia(name)) folders.push(`${file}/`);
      else if (kind === 'folder link') this.#warn(file, 'is a symbolic link to a folder; not followed');
      else if (isMedia(name) && listed === undefined)
        this.clips.push(await this.#plainClip(folder, name, names));
      else if (isMedia(name) && listed?.has(file) === false)
        this.#warn(file, 'is not listed in the manifest');
      else if (!isMedia(name) && !isCaption && !isManifest(name)) this.ignored.push(file);
    }
    // The clips of a manifest's folder are in the manifest; below it, only what is not in it is of interest.
    for (const nested of folders) {
      if (listed === undefined) await this.folder(nested, depth + 1);
      else await this.#contents(nested, depth + 1, await this.#list(nested, depth + 1), listed);
    }
  }

  async #list(folder: string, depth: number): Promise<Entry[]> {
    if (depth > folderLimits.depth) {
      this.#fail(folder, `folders are nested more than ${folderLimits.depth} deep; not read`);
      return [];
    }
    const entries = await readdir(join(this.#root, folder), { withFileTypes: true }).catch((error: Error) => {
      this.#fail(folder || '.', `cannot be read (${error.message})`);
      return [];
    });
    this.#entries += entries.length;
    if (this.#entries > folderLimits.entries) {
      throw new UserError(`${this.#root}: holds more than ${folderLimits.entries} files; check a part of it`);
    }
    // By code unit: the order must not depend on the machine's language.
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    const kinds: Entry[] = [];
    for (const entry of entries) {
      const kind = entry.isDirectory()
        ? 'folder'
        : entry.isSymbolicLink() && (await leadsToFolder(join(this.#root, folder, entry.name)))
          ? 'folder link'
          : 'file';
      kinds.push({ name: entry.name, kind });
    }
    return kinds;
  }

  async #plainClip(folder: string, name: string, names: ReadonlySet<string>): Promise<Clip> {
    const text = `${stem(name)}.txt`;
    const at = folder + (names.has(text) ? text : name);
    const captions = names.has(text) ? await this.#captionFile(at) : {};
    return { file: folder + name, captions, start: 0, end: Number.POSITIVE_INFINITY, tags: [], at };
  }

  async #captionFile(file: string): Promise<Captions> {
    try {
      const path = await resolveClipFile(this.#root, file);
      const { size } = await stat(path);
      if (size > manifestLimits.lineBytes) {
        throw new UserError(`${file}: a caption of ${size} bytes; shorten it to ${manifestLimits.lineBytes}`);
      }
      const text = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path)).trim();
      return text === '' ? {} : { medium: text };
    } catch (error) {
      const reason = error instanceof UserError ? error.message.slice(file.length + 2) : 'is not UTF-8 text';
      this.#fail(file, reason);
      return {};
    }
  }

  #warn(at: string, message: string): void {
    this.problems.push({ at, message, severity: 'warning' });
  }

  #fail(at: string, message: string): void {
    this.problems.push({ at, message, severity: 'error' });
  }
}

type Entry = { readonly name: string; readonly kind: 'file' | 'folder' | 'folder link' };

async function leadsToFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (target) => target.isDirectory(),
    () => false,
  );
}

function hasMedia(caption: string, names: ReadonlySet<string>): boolean {
  return [...videoEndings, ...stillEndings].some(
    (media) => names.has(`${stem(caption)}.${media}`) || names.has(`${stem(caption)}.${media.toUpperCase()}`),
  );
}

function isManifest(name: string): boolean {
  return manifestNames.some((manifest) => manifest === name);
}

function ending(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1).toLowerCase();
}

function stem(name: string): string {
  return name.slice(0, name.lastIndexOf('.'));
}
