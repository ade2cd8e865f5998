/**
 * Memory over many clips: resident memory of this process and of the decoding child, every tenth of the way.
 *
 *     npx node bench/video-memory.ts FOLDER [CLIPS=1000]
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MediaReader } from '../src/video/read.ts';

const [folder = '/work/shared/data/droid-arm/clips', count = '1000'] = process.argv.slice(2);
const names = readdirSync(folder).filter((name) => name.endsWith('.mp4'));
const clips = Number(count);

function residentMegabytes(pid: number | string): number {
  const pages = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);
  return (pages * 4096) / 2 ** 20;
}

function children(): string[] {
  const listed = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8');
  return listed.trim().split(' ').filter(Boolean);
}

await using reader = new MediaReader();
let frames = 0;
for (let i = 1; i <= clips; i++) {
  const path = join(folder, names[i % names.length] ?? '');
  const { report } = await reader.read(path, { end: 4, onShortfall: 'report' });
  frames += report.frames;
  if (i % Math.ceil(clips / 10) !== 0) continue;
  const child = children().map((pid) => residentMegabytes(pid).toFixed(0));
  console.log(
    `${i} clips, ${frames} frames: this process ${residentMegabytes('self').toFixed(0)} MB, child ${child} MB`,
  );
}
