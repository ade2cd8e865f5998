/**
 * Decoding throughput against the `ffmpeg` program doing the same work: the same file, decoded with as many threads, made
 * packed 8-bit RGB of the file's own size, and received by this process. Two conversions are compared with ours: the same
 * exact one (zimg, linear chroma), and ffmpeg's default, which repeats chroma in place of interpolating it.
 *
 *     npx node bench/video.ts [FILE ...] [--runs=7]
 *
 * Without files it makes two of the first clips of ../shared/data/droid-arm: their own 320x180, and 1280x720 with grain.
 * Rounds alternate, and each ratio is of neighbours in one round, so that other work on the machine bears on both.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { MediaReader } from '../src/video/read.ts';

const { values, positionals } = parseArgs({
  options: { runs: { type: 'string', default: '7' } },
  allowPositionals: true,
});
const threads = Math.min(4, availableParallelism());
const exact =
  'zscale=matrixin=IN:rangein=limited:chromalin=left:filter=bilinear:matrix=gbr:range=full,format=gbrp,scale';

/** Frames per second of the ffmpeg program, its start included, as the reader's includes a call to a running child. */
async function ffmpeg(file: string, height: number, frameBytes: number, filter: string): Promise<number> {
  const matrix = height >= 720 ? '709' : '170m';
  const chain = filter === 'exact' ? exact.replace('IN', matrix) : 'null';
  const args = ['-nostdin', '-v', 'error', '-threads', `${threads}`, '-i', file, '-vf', chain];
  const started = performance.now();
  const child = spawn('ffmpeg', [...args, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let bytes = 0;
  for await (const part of child.stdout) bytes += (part as Buffer).length;
  return bytes / frameBytes / ((performance.now() - started) / 1000);
}

async function ours(reader: MediaReader, file: string): Promise<number> {
  const started = performance.now();
  await using stream = await reader.stream(file);
  let frames = 0;
  for await (const piece of stream) frames += piece.frames;
  return frames / ((performance.now() - started) / 1000);
}

async function makeFiles(folder: string): Promise<string[]> {
  const clips = resolve('../shared/data/droid-arm/clips');
  const names = readdirSync(clips).slice(0, 40);
  const list = join(folder, 'list.txt');
  await writeFile(list, names.map((name) => `file '${join(clips, name)}'\n`).join(''));
  const input = ['-nostdin', '-v', 'error', '-f', 'concat', '-safe', '0', '-i', list];
  const grain = ['-vf', 'scale=1280:720:flags=bicubic,noise=alls=4:allf=t', '-frames:v', '300'];
  return [['-crf', '18'] as const, [...grain, '-crf', '20'] as const].map((options, i) => {
    const path = join(folder, `${i}.mp4`);
    spawnSync('ffmpeg', [...input, ...options, '-c:v', 'libx264', '-pix_fmt', 'yuv420p', path]);
    return path;
  });
}

const median = (list: number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1] ?? 0;
const spread = (list: number[]): string =>
  `median ${median(list).toFixed(2)}, lowest ${Math.min(...list).toFixed(2)}`;

const folder = await mkdtemp(join(tmpdir(), 'zoetrope-bench-'));
try {
  await using reader = new MediaReader();
  for (const file of positionals.length > 0 ? positionals : await makeFiles(folder)) {
    const { width, height } = await reader.probe(file);
    const figures = { ours: [] as number[], exact: [] as number[], fast: [] as number[] };
    for (let run = 0; run < Number(values.runs); run++) {
      figures.exact.push(await ffmpeg(file, height, width * height * 3, 'exact'));
      figures.ours.push(await ours(reader, file));
      figures.fast.push(await ffmpeg(file, height, width * height * 3, 'default'));
    }
    const against = (theirs: number[]) => theirs.map((fps, i) => (figures.ours[i] ?? 0) / fps);
    console.log(
      `${width}x${height}: ours ${median(figures.ours).toFixed(0)} fps, best ${Math.max(...figures.ours).toFixed(0)}\n` +
        `  of ffmpeg with the same conversion (${median(figures.exact).toFixed(0)} fps): ${spread(against(figures.exact))}\n` +
        `  of ffmpeg with its default conversion (${median(figures.fast).toFixed(0)} fps): ${spread(against(figures.fast))}`,
    );
  }
} finally {
  await rm(folder, { recursive: true });
}
