import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ClipSource, type ClipSourceState, type ClipWindow } from '../../src/data/clip-source.ts';
import { checkDataset, type DatasetReport, windowsOf } from '../../src/data/preflight/check.ts';
import { defaultWindow } from '../../src/data/window.ts';
import { frameAt, type Video, videoFrom } from '../../src/video/frames.ts';
import { MediaReader } from '../../src/video/read.ts';
import { writeVideo } from '../../src/video/write.ts';

let folder = '';
let report: DatasetReport;
let windows: readonly ClipWindow[];

const window = { ...defaultWindow, maxFrames: 13, rate: 15, minSeconds: 0.3 };
const size = { width: 64, height: 48 };

/** Frames that can be told apart after coding: each has its number in its brightness pattern. */
function numbered(frames: number, rate: number, seed: number): Video {
  const { width, height } = size;
  const data = new Uint8Array(frames * width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const frame = Math.floor(i / (width * height * 3));
    const column = Math.floor((i % (width * 3)) / 24);
    data[i] = ((frame >> column) & 1) * 120 + 40 + ((seed * 37) % 60);
  }
  return videoFrom(data, { width, height, rate });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-decoding-'));
  const rates = [15, 30, 24, 10];
  for (const [i, rate] of rates.entries()) {
    await writeVideo(numbered(70 + i, rate, i), join(folder, `${i}.${i === 2 ? 'webm' : 'mp4'}`));
  }
  await writeVideo(numbered(1, 1, 9), join(folder, 'still.png'));
  await using reader = new MediaReader({ processes: 2 });
  ({ report } = await checkDataset(folder, { window, reader, processes: 2 }));
  // What was sound when it was planned may be damaged when it is read.
  const whole = await readFile(join(folder, '0.mp4'));
  await writeFile(join(folder, '0.mp4'), whole.subarray(0, whole.length / 3));
  windows = windowsOf(report);
});
afterAll(async () => await rm(folder, { recursive: true }));

/** Positions, files and digests of the pixels of the next samples, and the state after them. */
async function stream(processes: number, count: number, state?: ClipSourceState) {
  await using reader = new MediaReader({ processes });
  const bad: string[] = [];
  const source = new ClipSource({
    root: report.root,
    windows,
    seed: 3,
    reader,
    onBadFile: (file) => bad.push(file),
    ...(state === undefined ? {} : { state }),
  });
  const samples: string[] = [];
  for (let i = 0; i < count; i++) {
    const { position, clip, video } = await source.next();
    const digest = createHash('sha256').update(video.data).digest('hex').slice(0, 12);
    samples.push(`${position} ${clip.file} ${clip.window.start} ${video.frames} ${digest}`);
  }
  return { samples, bad, state: source.state };
}

describe('decoding a plan', () => {
  test('gives the very frames that were planned', async () => {
    await using reader = new MediaReader({ processes: 2 });
    for (const { file, windows: planned } of report.clips.filter((clip) => clip.file !== '0.mp4')) {
      const whole = (await reader.read(join(folder, file))).video;
      for (const { source, start, frames, rate, retimed, size: target } of planned) {
        const options = { start, maxFrames: frames, size: target, ...(retimed ? { rate } : {}) };
        const { video } = await reader.read(join(folder, file), options);
        expect(video.frames, file).toBe(frames);
        const shown = Array.from({ length: frames }, (_, k) => {
          if (!retimed) return source.from + k;
          const distances = [...whole.timestamps].map((t) => Math.abs(t - (start + k / rate)));
          return distances.indexOf(Math.min(...distances));
        });
        for (const [k, index] of shown.entries()) {
          expect(Buffer.compare(frameAt(video, k), frameAt(whole, index)), `${file} frame ${index}`).toBe(0);
        }
        expect([shown[0], shown.at(-1)]).toEqual([source.from, source.to - 1]);
      }
    }
  });

  test('is the same from one process and from three, and when resumed', async () => {
    const count = 2 * windows.length;
    const one = await stream(1, count);
    const three = await stream(3, count);
    expect(three).toEqual(one);
    expect(one.bad).toEqual(['0.mp4']);
    const cut = Math.floor(count / 3);
    const first = await stream(2, cut);
    const second = await stream(3, count - cut, JSON.parse(JSON.stringify(first.state)));
    expect([...first.samples, ...second.samples]).toEqual(one.samples);
    expect(second.state).toEqual(one.state);
  });

  test('has windows of every kind to try', () => {
    expect(new Set(report.clips.map(({ outcome }) => outcome))).toEqual(
      new Set(['windows', 'retimed', 'whole']),
    );
    expect(windows.length).toBeGreaterThan(15);
  });
});
