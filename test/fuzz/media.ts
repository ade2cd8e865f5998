/**
 * Damages media files and reads them: no crash of this process, no hang, no unbounded memory, no silent short read.
 *
 *     npx node test/fuzz/media.ts [COUNT=2000] [SEED=1]
 *
 * With the ffprobe program installed, what a damaged file claims is taken from it, as an independent witness.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { UserError } from '../../src/errors.ts';
import { videoFrom } from '../../src/video/frames.ts';
import { MediaReader, type ReadResult } from '../../src/video/read.ts';
import { writeVideo } from '../../src/video/write.ts';
import { mutate, mutations, seeded } from './mutate.ts';

const mediaCases = '/work/shared/data/media-cases';
const hangSeconds = 5;

/** What came of the fuzzing. `problems` is empty when all is well. */
export interface FuzzResult {
  readonly outcomes: {
    whole: number;
    shortfall: number;
    refused: number;
    crashedChild: number;
    timedOut: number;
  };
  readonly slowestSeconds: number;
  /** Largest growth of this process's resident memory, in bytes. */
  readonly grownBytes: number;
  readonly problems: string[];
}

/** Reads `count` damaged files. */
export async function fuzzMedia(count: number, seed: number, useCases: boolean): Promise<FuzzResult> {
  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-fuzz-'));
  const limits = { seconds: hangSeconds, memory: 2 ** 30, pixels: 4e6 };
  await using reader = new MediaReader({ limits });
  try {
    const originals = await readOriginals(folder, reader, useCases);
    const outcomes = { whole: 0, shortfall: 0, refused: 0, crashedChild: 0, timedOut: 0 };
    const problems: string[] = [];
    let slowestSeconds = 0;
    const before = process.memoryUsage().rss;
    let grownBytes = 0;
    const next = seeded(seed);
    for (let i = 0; i < count; i++) {
      const original = originals[next() % originals.length];
      const kind = mutations[i % mutations.length];
      if (!original || !kind) throw new Error('nothing to damage');
      const path = join(folder, `mutant-${i}${extname(original.path)}`);
      writeFileSync(path, mutate(original.bytes, kind, next()));
      const what = `#${i} ${original.path} (${kind})`;
      const started = performance.now();
      try {
        // Small frames: it is the decoder that is tested, and a step must not be long because frames are large.
        const result = await reader.read(path, { onShortfall: 'report', size: { width: 64, height: 64 } });
        outcomes[result.report.shortfall ? 'shortfall' : 'whole']++;
        const silent = silentlyShort(path, result, original.frames);
        if (silent) problems.push(`${what}: ${silent}`);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        if (!(error instanceof UserError)) problems.push(`${what}: not a UserError: ${message}`);
        else if (message.includes('\n') || !message.includes(path))
          problems.push(`${what}: not one line naming it: ${message}`);
        if (/process ended/.test(message)) {
          outcomes.crashedChild++;
          console.error(`${what}: ${message}`);
        } else if (/takes more than/.test(message)) {
          outcomes.timedOut++;
          problems.push(`${what}: ${message}`);
        } else outcomes.refused++;
      }
      const seconds = (performance.now() - started) / 1000;
      slowestSeconds = Math.max(slowestSeconds, seconds);
      if (seconds > hangSeconds + 2) problems.push(`${what}: took ${seconds.toFixed(1)} s`);
      grownBytes = Math.max(grownBytes, process.memoryUsage().rss - before);
      rmSync(path);
    }
    return { outcomes, slowestSeconds, grownBytes, problems };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Original {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly frames: number;
}

async function readOriginals(folder: string, reader: MediaReader, useCases: boolean): Promise<Original[]> {
  const paths = await writeOwn(folder);
  if (useCases && existsSync(mediaCases))
    paths.push(...readdirSync(mediaCases).map((name) => join(mediaCases, name)));
  const originals: Original[] = [];
  for (const path of paths) {
    const result = await reader
      .read(path, { onShortfall: 'report', size: { width: 64, height: 64 } })
      .catch(() => undefined);
    originals.push({ path, bytes: readFileSync(path), frames: result?.video.frames ?? 0 });
  }
  return originals;
}

async function writeOwn(folder: string): Promise<string[]> {
  const [width, height, frames] = [64, 48, 20];
  const data = Uint8Array.from(
    { length: width * height * 3 * frames },
    (_, i) => (i * 7 + (i >> 9) * 13) & 255,
  );
  const video = videoFrom(data, { width, height, rate: 24 });
  const still = videoFrom(data.subarray(0, width * height * 3), { width, height, rate: 1 });
  const paths = ['a.mp4', 'a.webm', 'a.gif', 'a.webp', 'a.png', 'a.jpg'].map((name) => join(folder, name));
  for (const path of paths) await writeVideo(/png|jpg/.test(path) ? still : video, path);
  return paths;
}

interface ProbedStream {
  readonly nb_frames?: string;
  readonly duration?: string;
  readonly avg_frame_rate?: string;
}

/** Fewer frames than before the damage, none of it stated, although the damaged file still claims them. */
function silentlyShort(
  path: string,
  { video, report }: ReadResult,
  originalFrames: number,
): string | undefined {
  if (report.shortfall || video.frames >= originalFrames) return undefined;
  const fields = 'stream=nb_frames,duration,avg_frame_rate';
  const args = ['-v', 'quiet', '-select_streams', 'v:0', '-show_entries', fields, '-of', 'json', path];
  const probed = spawnSync('ffprobe', args, { timeout: 10_000 });
  if (probed.error || probed.status !== 0) return undefined;
  const [stream] = (JSON.parse(probed.stdout.toString()) as { streams?: ProbedStream[] }).streams ?? [];
  const claimed = Number(stream?.nb_frames);
  if (claimed > video.frames + report.hidden)
    return `${video.frames} frames and no word of ${claimed} claimed (${originalFrames} before)`;
  const [num = 0, den = 1] = (stream?.avg_frame_rate ?? '').split('/').map(Number);
  const seconds = (video.timestamps.at(-1) ?? 0) + 1 / video.rate;
  const missing = (Number(stream?.duration) - seconds) * (num / den);
  if (missing > 2) return `ends at ${seconds.toFixed(2)} s and no word of ${stream?.duration} s claimed`;
  return undefined;
}

if (process.argv[1] === import.meta.filename) {
  const [count = 2000, seed = 1] = process.argv.slice(2).map(Number);
  const started = performance.now();
  const result = await fuzzMedia(count, seed, true);
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(`${count} damaged files, seed ${seed}, ${seconds} s:`, result.outcomes);
  console.log(
    `slowest ${result.slowestSeconds.toFixed(2)} s, parent grew by ${(result.grownBytes / 2 ** 20).toFixed(0)} MB`,
  );
  for (const problem of result.problems) console.log(`PROBLEM ${problem}`);
  process.exitCode = result.problems.length > 0 ? 1 : 0;
}
