import { createReadStream } from 'node:fs';
import { UserError } from '../errors.ts';

/** Levels of detail of captions, from the least to the most: `smile`, a typed prompt, a sentence, a description. */
export const captionLevels = ['label', 'short', 'medium', 'detailed'] as const;

/** One of {@link captionLevels}. */
export type CaptionLevel = (typeof captionLevels)[number];

/** What is said of a clip at each level of detail; a level that nobody wrote is absent. Never empty strings. */
export type Captions = { readonly [L in CaptionLevel]?: string };

/** A stretch of one video file, or a still picture, with what is said of it. */
export type Clip = {
  /** Path relative to the dataset's folder, with `/` between folders; never leads out of the folder. */
  readonly file: string;
  readonly captions: Captions;
  /** First moment of the clip in seconds of the file's own clock; 0 unless given. */
  readonly start: number;
  /** Moment at which the clip has ended, in seconds; `Infinity`, the end of the file, unless given. */
  readonly end: number;
  readonly tags: readonly string[];
  /** Where the clip is described, such as `captions.jsonl:12`, or its file in a plain folder. */
  readonly at: string;
};

/** Something wrong with a dataset, as one line that names where. */
export type DatasetProblem = {
  /** A file, or a line of a manifest such as `captions.jsonl:12`. */
  readonly at: string;
  /** What is wrong, without `at`. */
  readonly message: string;
  /** `error`: something that was meant for training cannot be used. `warning`: look at it, nothing is lost. */
  readonly severity: 'error' | 'warning';
};

/** A manifest as read: the clips of its good lines in order, and what is wrong with the others. */
export type Manifest = {
  readonly clips: readonly Clip[];
  readonly problems: readonly DatasetProblem[];
  /** Fields that have no meaning here, with the number of lines that have them: a typing error shows up as one. */
  readonly unknownFields: ReadonlyMap<string, number>;
};

/** Bounds that hold for every manifest. */
export const manifestLimits = {
  /** Bytes in a line. */
  lineBytes: 65_536,
  /** Lines in a manifest. */
  lines: 5_000_000,
  /** Code units in a caption; longer ones are an error, so that no text is cut silently. */
  captionLength: 16_384,
  /** Code units in the path of a file. */
  pathLength: 1_024,
  /** Wrong lines that are described before reading stops. */
  problems: 1_000,
} as const;

// `robot` and `scene` are context that some datasets give; they become tags. `start_s` says where a clip was cut out
// of a longer recording that is not here: it is no time range of the file, and is left alone.
const contextFields = ['robot', 'scene'] as const;
const knownFields: ReadonlySet<string> = new Set([
  'file',
  'caption',
  'captions',
  'label',
  'short',
  'start',
  'end',
  'tags',
  'start_s',
  ...contextFields,
]);

/**
 * Reads one line of a manifest, a JSON object:
 *
 * - `file` (required): the media file, relative to the manifest's folder.
 * - `captions`: `{label, short, medium, detailed}`, any of them. Or flat: `label`, `short` and `caption`, where
 *   `caption` is the `medium` level, or the `detailed` one where `short` stands beside it.
 * - `start`, `end`: the part of the file that is meant, in seconds.
 * - `tags`: a list of strings, or one string with ` / ` or `,` between tags; `robot` and `scene` add tags.
 *
 * @param at names the line in messages, such as `captions.jsonl:12`.
 * @throws UserError one line that begins with `at`.
 */
export function parseManifestLine(line: string, at: string): Clip {
  const fields = parseObject(line, at);
  const start = readSeconds(fields, 'start', 0, at);
  const end = readSeconds(fields, 'end', Number.POSITIVE_INFINITY, at);
  if (!(end > start)) {
    throw new UserError(`${at}: end (${end} s) must be later than start (${start} s)`);
  }
  return {
    file: readFile(fields, at),
    captions: readCaptions(fields, at),
    start,
    end,
    tags: readTags(fields, at),
    at,
  };
}

/** The line of a manifest that {@link parseManifestLine} reads back as `clip`; without a line break. */
export function formatManifestLine(clip: Omit<Clip, 'at'>): string {
  return JSON.stringify({
    file: clip.file,
    captions: clip.captions,
    ...(clip.start === 0 ? {} : { start: clip.start }),
    ...(clip.end === Number.POSITIVE_INFINITY ? {} : { end: clip.end }),
    ...(clip.tags.length === 0 ? {} : { tags: clip.tags }),
  });
}

/**
 * Reads a manifest, line by line and within {@link manifestLimits}. Wrong lines do not stop it: they are in `problems`.
 *
 * @param path the manifest file.
 * @param name what to call it in messages.
 * @throws UserError when the file cannot be read.
 */
export async function readManifest(path: string, name: string): Promise<Manifest> {
  const clips: Clip[] = [];
  const problems: DatasetProblem[] = [];
  const unknownFields = new Map<string, number>();
  let number = 0;
  try {
    for await (const line of boundedLines(path)) {
      number++;
      const at = `${name}:${number}`;
      if (number > manifestLimits.lines || problems.length >= manifestLimits.problems) {
        const what = number > manifestLimits.lines ? `${manifestLimits.lines} lines` : 'too many wrong lines';
        problems.push({ at, message: `${what}: the rest of the manifest was not read`, severity: 'error' });
        break;
      }
      if (line === undefined) {
        const message = `line longer than ${manifestLimits.lineBytes} bytes: not read`;
        problems.push({ at, message, severity: 'error' });
      } else if (line.trim() !== '') {
        readLine(line, at, clips, problems, unknownFields);
      }
    }
  } catch (error) {
    throw new UserError(`${name}: cannot be read (${error instanceof Error ? error.message : error})`);
  }
  return { clips, problems, unknownFields };
}

/**
 * Refuses a path that could lead out of the dataset's folder, or that no file can have.
 *
 * @returns what is wrong, without a subject; `undefined` for a good path.
 */
export function pathMistake(path: string): string | undefined {
  if (path === '') return 'is empty';
  if (path.length > manifestLimits.pathLength)
    return `is longer than ${manifestLimits.pathLength} characters`;
  if (path.includes('\0')) return 'contains a NUL character';
  if (path.includes('\\')) return `'${path}' contains a backslash; write / between folders`;
  if (path.startsWith('/') || /^[a-z]:/i.test(path)) {
    return `'${path}' is absolute; give it relative to the dataset's folder`;
  }
  if (path.split('/').includes('..'))
    return `'${path}' leads out of the dataset's folder; put the file into it`;
  return undefined;
}

function readLine(
  line: string,
  at: string,
  clips: Clip[],
  problems: DatasetProblem[],
  unknownFields: Map<string, number>,
): void {
  try {
    clips.push(parseManifestLine(line, at));
    for (const field of Object.keys(JSON.parse(line) as object)) {
      // A hostile manifest may have a new field in every line.
      if (knownFields.has(field) || (unknownFields.size >= 100 && !unknownFields.has(field))) continue;
      unknownFields.set(field, (unknownFields.get(field) ?? 0) + 1);
    }
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    problems.push({ at, message: error.message.slice(at.length + 2), severity: 'error' });
  }
}

type Fields = Readonly<Record<string, unknown>>;

function parseObject(line: string, at: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new UserError(
      `${at}: not JSON; each line must be one object such as {"file": "a.mp4", "caption": "..."}`,
    );
  }
  if (!isObject(value)) throw new UserError(`${at}: must be a JSON object, got ${describe(value)}`);
  return value;
}

function readFile(fields: Fields, at: string): string {
  const file = fields.file;
  if (typeof file !== 'string') {
    throw new UserError(`${at}: file must be a string that names the clip, got ${describe(file)}`);
  }
  const mistake = pathMistake(file);
  if (mistake !== undefined) throw new UserError(`${at}: file ${mistake}`);
  return file
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');
}

function readCaptions(fields: Fields, at: string): Captions {
  const nested = fields.captions ?? {};
  if (!isObject(nested)) {
    throw new UserError(
      `${at}: captions must be an object with ${captionLevels.join(', ')}, got ${describe(nested)}`,
    );
  }
  const stray = Object.keys(nested).find((key) => !captionLevels.some((level) => level === key));
  if (stray !== undefined) {
    throw new UserError(`${at}: captions has no level '${stray}'; use ${captionLevels.join(', ')}`);
  }
  const flat = {
    label: readText(fields.label, 'label', at),
    short: readText(fields.short, 'short', at),
    [fields.short === undefined ? 'medium' : 'detailed']: readText(fields.caption, 'caption', at),
  };
  const captions: { [L in CaptionLevel]?: string } = {};
  for (const level of captionLevels) {
    const text = readText(nested[level], `captions.${level}`, at) || flat[level];
    if (text) captions[level] = text;
  }
  return captions;
}

/** A caption with the white space around it taken off; empty when there is none. */
function readText(value: unknown, field: string, at: string): string {
  if (value === undefined || value === null) return '';
  if (typeof value !== 'string')
    throw new UserError(`${at}: ${field} must be a string, got ${describe(value)}`);
  if (value.length > manifestLimits.captionLength) {
    throw new UserError(
      `${at}: ${field} has ${value.length} characters; shorten it to at most ${manifestLimits.captionLength}`,
    );
  }
  return value.trim();
}

function readSeconds(fields: Fields, field: string, fallback: number, at: string): number {
  const value = fields[field];
  if (value === undefined || value === null) return fallback;
  if (typeof value !== 'number' || !(value >= 0)) {
    throw new UserError(`${at}: ${field} must be a number of seconds, 0 or more, got ${describe(value)}`);
  }
  return value;
}

function readTags(fields: Fields, at: string): readonly string[] {
  const value = fields.tags ?? [];
  const list: unknown = typeof value === 'string' ? value.split(/ \/ |,/) : value;
  if (!Array.isArray(list) || !list.every((tag) => typeof tag === 'string')) {
    throw new UserError(`${at}: tags must be a list of strings, got ${describe(value)}`);
  }
  const context = contextFields.map((field) => readText(fields[field], field, at));
  const tags = [...list, ...context].map((tag) => tag.trim()).filter((tag) => tag !== '');
  return [...new Set(tags)];
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value in a message: short, on one line. */
function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 37)}...` : text;
}

/** The lines of a file; `undefined` stands for one that is longer than the limit, whose bytes are never held. */
async function* boundedLines(path: string): AsyncGenerator<string | undefined> {
  let pieces: Buffer[] = [];
  let bytes = 0;
  const take = (): string | undefined => {
    const line = bytes > manifestLimits.lineBytes ? undefined : Buffer.concat(pieces).toString('utf8');
    pieces = [];
    bytes = 0;
    return line;
  };
  const keep = (piece: Buffer) => {
    bytes += piece.length;
    if (bytes <= manifestLimits.lineBytes) pieces.push(piece);
    else pieces = [];
  };
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let to = chunk.indexOf(10); to >= 0; to = chunk.indexOf(10, from)) {
      keep(chunk.subarray(from, to));
      from = to + 1;
      yield take();
    }
    keep(chunk.subarray(from));
  }
  if (bytes > 0) yield take();
}
