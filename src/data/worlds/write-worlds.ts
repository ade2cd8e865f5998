import { mkdir, open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { attemptWrite, writeAtomically, writeFileAtomic } from '../../atomic-file.ts';
import { UserError } from '../../errors.ts';
import { type Video, videoFrom } from '../../video/frames.ts';
import { MediaWriter } from '../../video/write.ts';
import { formatManifestLine } from '../manifest.ts';
import { groundTruth } from './ground-truth.ts';
import { frameCount, WorldRenderer } from './render.ts';
import type { Scene } from './scene.ts';
import type { Split } from './split.ts';
import { makeWorld, type World, worldKey } from './world.ts';

/** A data set of worlds. Together with the number of a clip these decide its bytes. */
export interface WorldsPlan {
  /** Number of clips, 1 to {@link mostWorlds}. */
  readonly count: number;
  /** Frame size in pixels, even. */
  readonly width: number;
  readonly height: number;
  /** Duration of every clip. */
  readonly seconds: number;
  /** Frames per second. */
  readonly rate: number;
  readonly seed: number;
  readonly split: Split;
}

/** How to write a {@link WorldsPlan}. */
export interface WriteWorldsOptions {
  /** Clips encoded at once; default 2. */
  readonly concurrency?: number;
  /** Stops after the clips in work; the same call takes up from there. */
  readonly signal?: AbortSignal;
  /** Called after each clip with how many there are by now. */
  readonly onProgress?: (done: number) => void;
}

/** What {@link writeWorlds} did. */
export interface WorldsWritten {
  /** Clips written now, and clips that were there already. */
  readonly written: number;
  readonly kept: number;
  /** False when stopped by the signal. */
  readonly complete: boolean;
}

/** Most clips in one folder. */
export const mostWorlds = 100_000;

const planFile = 'worlds.json';
/** Little loss: at 64x64 it costs next to nothing. */
const quality = 92;
const framesPerPiece = 32;

/**
 * Writes a data set of worlds into a folder: `clips/000000.mp4` and so on, `manifest.jsonl` with their captions,
 * `truth.jsonl` with each one's scene and ground truth frame by frame, and `worlds.json` with the plan. Called again
 * with the same plan it writes only the clips that are missing.
 *
 * @throws UserError when the folder holds something else, or cannot be written.
 */
export async function writeWorlds(
  folder: string,
  plan: WorldsPlan,
  options: WriteWorldsOptions = {},
): Promise<WorldsWritten> {
  const { concurrency = 2, signal, onProgress } = options;
  await prepareFolder(folder, plan);
  let next = 0;
  let written = 0;
  let kept = 0;
  const done = new Map<number, World>();
  await using writer = new MediaWriter({ processes: concurrency });
  const work = async () => {
    while (next < plan.count && signal?.aborted !== true) {
      const index = next++;
      const world = worldOf(plan, index);
      if (await exists(join(folder, clipName(index)))) kept++;
      else {
        await writer.write(pieces(world.scene, plan), join(folder, clipName(index)), { quality });
        written++;
      }
      done.set(index, world);
      onProgress?.(done.size);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  const worlds = [...done].sort(([a], [b]) => a - b);
  await writeLines(join(folder, 'truth.jsonl'), worlds, (index, { scene }) =>
    JSON.stringify({ file: clipName(index), scene, frames: groundTruth(scene, plan) }, rounded),
  );
  await writeLines(join(folder, 'manifest.jsonl'), worlds, (index, world) =>
    manifestLine(plan, index, world),
  );
  return { written, kept, complete: done.size === plan.count };
}

function worldOf({ seed, seconds, split }: WorldsPlan, index: number): World {
  return makeWorld(worldKey(seed, index), { seconds, split });
}

async function writeLines(
  path: string,
  worlds: readonly (readonly [index: number, world: World])[],
  line: (index: number, world: World) => string,
): Promise<void> {
  const write = async (temporary: string) => {
    await using file = await open(temporary, 'wx');
    for (const [index, world] of worlds) await file.write(`${line(index, world)}\n`);
  };
  await writeAtomically(path, (temporary) => attemptWrite(path, () => write(temporary)));
}

/** A scene's frames, some at a time, so that a long clip needs no more memory than a short one. */
function* pieces(scene: Scene, { width, height, rate }: WorldsPlan): Generator<Video> {
  const renderer = new WorldRenderer(scene, width, height);
  const count = frameCount(scene, rate);
  const bytes = 3 * width * height;
  for (let from = 0; from < count; from += framesPerPiece) {
    const frames = Math.min(framesPerPiece, count - from);
    const data = new Uint8Array(frames * bytes);
    for (let i = 0; i < frames; i++) {
      renderer.frame((from + i) / rate, data.subarray(i * bytes, (i + 1) * bytes));
    }
    yield videoFrom(data, { width, height, rate, start: from / rate });
  }
}

function manifestLine({ split }: WorldsPlan, index: number, { scene, captions }: World): string {
  const { place, time, weather } = scene.background;
  return formatManifestLine({
    file: clipName(index),
    captions,
    start: 0,
    end: Number.POSITIVE_INFINITY,
    tags: ['world', split, place, time, weather],
  });
}

function clipName(index: number): string {
  return `clips/${String(index).padStart(6, '0')}.mp4`;
}

/** Five decimals are a hundredth of a pixel in a frame of a thousand. */
function rounded(_name: string, value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value * 1e5) / 1e5 : value;
}

/** Makes the folder, or checks that what is there is the same data set. */
async function prepareFolder(folder: string, plan: WorldsPlan): Promise<void> {
  const text = `${JSON.stringify(plan)}\n`;
  // Not recursively: on some file systems, such as /proc, that never ends.
  await makeFolder(folder);
  await makeFolder(join(folder, 'clips'));
  const before = await readFile(join(folder, planFile), 'utf8').catch(() => undefined);
  if (before === text) return;
  if (before !== undefined) {
    throw new UserError(`${folder}: holds worlds of another plan (${planFile}); choose another folder`);
  }
  const other = (await readdir(folder)).find((name) => name !== 'clips');
  if (other !== undefined || (await readdir(join(folder, 'clips'))).length > 0) {
    throw new UserError(`${folder}: is not empty; choose another folder`);
  }
  await writeFileAtomic(join(folder, planFile), text);
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return;
    throw new UserError(
      `${path}: the folder cannot be made (${code}); choose one in a folder that is there and can be written to`,
    );
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}
