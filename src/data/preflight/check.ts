import sharp from 'sharp';
import type { MediaReader } from '../../video/read.ts';
import type { ClipWindow } from '../clip-source.ts';
import { openDataset } from '../dataset.ts';
import type { Clip, DatasetProblem } from '../manifest.ts';
import { type ClipPlan, type Outcome, outcomes, planClip } from '../plan.ts';
import type { WindowSpec } from '../window.ts';
import { type Duplicates, findDuplicates, fingerprint, type Likeness } from './duplicates.ts';
import { durationHistogram, type Histogram, rateHistogram, sizeHistogram } from './histogram.ts';
import { type FileSurvey, type Picture, surveyFile } from './survey.ts';

/** What becomes of one clip, with what is known of its file. */
export type ClipReport = ClipPlan & {
  readonly file: string;
  /** Where it is described: a line of a manifest, a caption file, or the file itself. */
  readonly at: string;
  readonly captions: Clip['captions'];
  readonly tags: Clip['tags'];
  /** The part of the file that the clip is, in seconds; `end` is null for the end of the file. */
  readonly start: number;
  readonly end: number | null;
  readonly media: MediaReport;
};

/** What decoding has shown of a file. Clips of one file share it. */
export type MediaReport = {
  readonly kind: 'video' | 'still' | 'none';
  readonly codec: string;
  readonly width: number;
  readonly height: number;
  /** Frames decoded. */
  readonly frames: number;
  /** Frames per second; 0 for a still. */
  readonly rate: number;
  /** How long the frames play; 0 for a still. */
  readonly seconds: number;
  readonly bytes: number;
  readonly sha256: string;
  /** Why the file is not used; null for a sound one. */
  readonly damage: string | null;
};

/** Sums over a dataset; each file counts once, however many clips are in it. */
export type Totals = {
  readonly clips: number;
  readonly files: number;
  readonly videos: number;
  readonly stills: number;
  /** Files that are not used because of what they are or hold. */
  readonly damaged: number;
  /** Frames of videos that can be decoded. */
  readonly frames: number;
  /** Playing time of videos. */
  readonly seconds: number;
  readonly bytes: number;
  readonly outcomes: { readonly [O in Outcome]: number };
  readonly windows: number;
  /** Frames in all windows. */
  readonly windowFrames: number;
  /** Frames of used clips that no window has. */
  readonly trimmedFrames: number;
  /** Frames that re-timing leaves out. */
  readonly leftOutFrames: number;
  /** Frames that re-timing repeats. */
  readonly repeatedFrames: number;
};

/** All that the preflight has to say. Plain data: it goes through JSON unchanged. */
export type DatasetReport = {
  /** As it was given. */
  readonly path: string;
  /** The folder that the files are relative to: absolute, without symbolic links. */
  readonly root: string;
  readonly window: WindowSpec;
  readonly totals: Totals;
  readonly clips: readonly ClipReport[];
  readonly problems: readonly DatasetProblem[];
  readonly duplicates: Duplicates;
  /** Files that were looked past: neither media nor captions, or hidden. */
  readonly ignored: readonly string[];
  readonly histograms: readonly Histogram[];
};

/** How a check is done. */
export type CheckOptions = {
  readonly window: WindowSpec;
  /** Decodes; the check keeps `processes` files going at once. */
  readonly reader: Pick<MediaReader, 'stream'>;
  readonly processes: number;
  /** Whether to make pictures of the first {@link mostThumbnails} files. Default false. */
  readonly thumbnails?: boolean;
  readonly signal?: AbortSignal;
  /** Told of files done and files in all. */
  readonly onProgress?: (done: number, total: number) => void;
};

/** Files that get thumbnails: the page must stay one that a browser can open. */
export const mostThumbnails = 10_000;

/** Pixels of the longer side of the frames looked at: few for comparing, more where people look at them too. */
const surveySide = { comparing: 48, showing: 120 };

/**
 * Decodes every file of a dataset from end to end and says of every clip what training would do with it.
 *
 * The report depends on the files alone, not on timing or `processes`.
 *
 * @returns the report, and thumbnails by file: JPEG sheets of up to four frames, as data URLs.
 * @throws UserError when `path` is no dataset, or `signal` is aborted.
 */
export async function checkDataset(
  path: string,
  options: CheckOptions,
): Promise<{ report: DatasetReport; thumbnails: ReadonlyMap<string, string> }> {
  const dataset = await openDataset(path);
  const byFile = Map.groupBy(dataset.clips, ({ file }) => file);
  const files = [...byFile.keys()];
  const showsPictures = options.thumbnails === true;
  const side = showsPictures ? surveySide.showing : surveySide.comparing;
  const thumbnails = new Map<string, string>();
  const clips = new Map<Clip, ClipReport>();
  const likenesses: Likeness[] = [];
  let done = 0;
  options.onProgress?.(done, files.length);
  await forEachAtOnce(files, options.processes, async (file, index) => {
    options.signal?.throwIfAborted();
    const survey = await surveyFile(options.reader, dataset.root, file, side);
    for (const clip of byFile.get(file) ?? []) clips.set(clip, reportClip(clip, survey, options.window));
    const { hash, seconds, samples } = survey;
    likenesses[index] = { file, hash, seconds, fingerprint: fingerprint(samples) };
    if (showsPictures && index < mostThumbnails && samples.length > 0) {
      // Three would leave a gap in the sheet.
      thumbnails.set(file, await pictureSheet(samples.length === 3 ? samples.toSpliced(1, 1) : samples));
    }
    options.onProgress?.(++done, files.length);
  });
  const reports = dataset.clips.map((clip) => clips.get(clip)).filter((report) => report !== undefined);
  const media = [...new Map(reports.map((report) => [report.file, report.media])).values()];
  const videos = media.filter(({ kind }) => kind === 'video');
  const report: DatasetReport = {
    path,
    root: dataset.root,
    window: options.window,
    totals: sumUp(reports, media),
    clips: reports,
    problems: [...emptiness(path, files.length), ...dataset.problems, ...reports.flatMap(clipProblems)],
    duplicates: findDuplicates(likenesses),
    ignored: dataset.ignored,
    histograms: [
      sizeHistogram(media.filter(({ kind }) => kind !== 'none')),
      durationHistogram(videos.map(({ seconds }) => seconds)),
      rateHistogram(videos.map(({ rate }) => rate)),
    ],
  };
  return { report, thumbnails };
}

/** The windows of a report, as a `ClipSource` takes them: clip after clip, in order. */
export function windowsOf(report: DatasetReport): ClipWindow[] {
  return report.clips.flatMap(({ file, captions, tags, windows }) =>
    windows.map((window) => ({ file, captions, tags, window })),
  );
}

function reportClip(clip: Clip, survey: FileSurvey, window: WindowSpec): ClipReport {
  const { file, at, captions, tags, start, end } = clip;
  const { facts, damage, codec, seconds, bytes, hash } = survey;
  const media: MediaReport = {
    kind: facts === undefined ? 'none' : facts.still ? 'still' : 'video',
    codec,
    width: facts?.width ?? 0,
    height: facts?.height ?? 0,
    frames: facts?.timestamps.length ?? 0,
    rate: facts === undefined || facts.still ? 0 : facts.rate,
    seconds,
    bytes,
    sha256: hash,
    damage: damage ?? null,
  };
  const plan =
    facts === undefined || damage !== undefined
      ? skipDamaged(media.frames, damage ?? '')
      : planClip(facts, clip, window);
  return { file, at, captions, tags, start, end: Number.isFinite(end) ? end : null, media, ...plan };
}

/** A file that is damaged anywhere is not used at all: nobody knows what else is wrong with it. */
function skipDamaged(frames: number, damage: string): ClipPlan {
  const trimmed = frames === 0 ? [] : [{ from: 0, to: frames, reason: damage, outside: false }];
  return { outcome: 'skipped', reasons: [damage], windows: [], trimmed };
}

/** A dataset without clips is an error that would otherwise show as zeros. */
function emptiness(path: string, files: number): DatasetProblem[] {
  const message =
    'holds no clips; give a folder of media files such as clip.mp4, or a manifest that lists them';
  return files === 0 ? [{ at: path, message, severity: 'error' }] : [];
}

function clipProblems(clip: ClipReport): DatasetProblem[] {
  const problems: DatasetProblem[] = [];
  const { media, at, file } = clip;
  if (media.damage !== null) problems.push({ at: file, message: media.damage, severity: 'error' });
  if (Object.keys(clip.captions).length === 0) {
    const message = at === file ? 'has no caption' : `the caption of ${file} is missing or empty`;
    problems.push({ at, message, severity: 'warning' });
  }
  const last = media.seconds + (media.rate > 0 ? 1 / media.rate : 0);
  if (clip.end !== null && media.damage === null && clip.end > last) {
    const message = `asks for ${file} up to ${clip.end} s, and it ends at ${media.seconds.toFixed(2)} s`;
    problems.push({ at, message, severity: 'warning' });
  }
  return problems;
}

function sumUp(clips: readonly ClipReport[], media: readonly MediaReport[]): Totals {
  const windows = clips.flatMap((clip) => clip.windows);
  const used = clips.filter(({ outcome }) => outcome !== 'skipped');
  const videos = media.filter(({ kind }) => kind === 'video');
  const countOf = (outcome: Outcome) => clips.filter((clip) => clip.outcome === outcome).length;
  return {
    clips: clips.length,
    files: media.length,
    videos: videos.length,
    stills: media.filter(({ kind }) => kind === 'still').length,
    damaged: media.filter(({ damage }) => damage !== null).length,
    frames: sum(videos, ({ frames }) => frames),
    seconds: sum(videos, ({ seconds }) => seconds),
    bytes: sum(media, ({ bytes }) => bytes),
    outcomes: Object.fromEntries(
      outcomes.map((outcome) => [outcome, countOf(outcome)]),
    ) as Totals['outcomes'],
    windows: windows.length,
    windowFrames: sum(windows, ({ frames }) => frames),
    trimmedFrames: sum(used, lostFrames),
    leftOutFrames: sum(windows, ({ leftOut }) => leftOut),
    repeatedFrames: sum(windows, ({ repeated }) => repeated),
  };
}

/** Frames of a clip that no window has. */
function lostFrames({ trimmed }: ClipPlan): number {
  return sum(trimmed, ({ from, to, outside }) => (outside ? 0 : to - from));
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

/** Frames as one JPEG, two in a row, in a data URL. WebP would be a fifth smaller and take three times as long. */
async function pictureSheet(samples: readonly Picture[]): Promise<string> {
  const { width, height } = samples[0] ?? { width: 1, height: 1 };
  const columns = Math.min(2, samples.length);
  const size = { width: width * columns, height: height * Math.ceil(samples.length / columns) };
  const pixels = new Uint8Array(size.width * size.height * 3);
  for (const [i, { data }] of samples.entries()) {
    const left = (i % columns) * width;
    const top = Math.floor(i / columns) * height;
    for (let y = 0; y < height; y++) {
      pixels.set(data.subarray(y * width * 3, (y + 1) * width * 3), ((top + y) * size.width + left) * 3);
    }
  }
  const jpeg = await sharp(pixels, { raw: { ...size, channels: 3 } })
    .jpeg({ quality: 50 })
    .toBuffer();
  return `data:image/jpeg;base64,${jpeg.toString('base64')}`;
}

/** Calls `work` on each item in order, `width` of them at a time; fails as soon as one call does. */
async function forEachAtOnce<T>(
  items: readonly T[],
  width: number,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const queue = items.entries();
  const lane = async () => {
    for (const [index, item] of queue) await work(item, index);
  };
  await Promise.all(Array.from({ length: width }, lane));
}
