/**
 * Decoding throughput against the `ffmpeg` program doing the same work: the same file, decoded with as many threads, made
 * RGB by the same exact conversion, and received by this process. Medians over alternating runs.
 *
 *     npx node bench/video.ts [FILE ...] [--runs=7]
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { MediaReader } from '../src/video/read.ts';

const runs = Number(/^--runs=(\d+)$/.exec(process.argv.find((a) => a.startsWith('--runs=')) ?? '')?.[1] ?? 7);
const files = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const threads = Math.min(4, availableParallelism());
const exact =
  'zscale=matrixin=IN:rangein=limited:chromalin=left:filter=bicubic:matrix=gbr:range=full,format=gbrp,scale';

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

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;

await using reader = new MediaReader();
for (const file of files) {
  const info = await reader.probe(file);
  const figures = { ours: [] as number[], exact: [] as number[], fast: [] as number[] };
  for (let run = 0; run < runs; run++) {
    figures.ours.push(await ours(reader, file));
    figures.exact.push(await ffmpeg(file, info.height, info.width * info.height * 3, 'exact'));
    figures.fast.push(await ffmpeg(file, info.height, info.width * info.height * 3, 'default'));
  }
  const [mine, exactly, fast] = [median(figures.ours), median(figures.exact), median(figures.fast)];
  console.log(
    `${file}: ${info.width}x${info.height}, ours ${mine.toFixed(0)} fps; ffmpeg, same conversion ${exactly.toFixed(0)} ` +
      `(ratio ${(mine / exactly).toFixed(2)}); ffmpeg, its default conversion ${fast.toFixed(0)} (ratio ${(mine / fast).toFixed(2)})`,
  );
}
