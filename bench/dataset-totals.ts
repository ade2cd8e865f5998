/**
 * Compares the totals of `zoetrope dataset check` with ffprobe's, file by file:
 *
 *     node bin/zoetrope.js dataset check ../shared/data --json > report.json
 *     node bench/dataset-totals.ts report.json
 *
 * Exit code 1 when frames differ in any file, or playing time by more than a frame.
 */
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { DatasetReport } from '../src/data/preflight/check.ts';
import { probeFrames } from './ffprobe.ts';

const report = JSON.parse(await readFile(process.argv[2] ?? 'report.json', 'utf8')) as DatasetReport;
const media = [...new Map(report.clips.map((clip) => [clip.file, clip.media]))];
const theirs = { frames: 0, seconds: 0 };
let differing = 0;
const queue = media.values();
const lane = async () => {
  for (const [file, ours] of queue) {
    const probed = await probeFrames(join(report.path, file));
    const isVideo = ours.kind === 'video';
    theirs.frames += ours.kind === 'still' ? 0 : probed.frames;
    theirs.seconds += ours.kind === 'still' ? 0 : probed.seconds;
    const late = isVideo ? Math.abs(probed.seconds - ours.seconds) : 0;
    if (probed.frames === ours.frames && late <= 1.01 / Math.max(ours.rate, 1)) continue;
    differing++;
    console.log(
      `${file}: ${ours.frames} frames, ${ours.seconds.toFixed(3)} s; ffprobe ${probed.frames}, ${probed.seconds.toFixed(3)} s`,
    );
  }
};
await Promise.all(Array.from({ length: availableParallelism() }, lane));
const { totals } = report;
console.log(
  `videos: ${totals.frames} frames, ${totals.seconds.toFixed(2)} s; ffprobe ${theirs.frames}, ${theirs.seconds.toFixed(2)} s`,
);
console.log(`${differing} of ${media.length} files differ`);
process.exitCode = differing === 0 ? 0 : 1;
