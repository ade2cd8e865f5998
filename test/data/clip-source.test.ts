import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ClipSource, type ClipSourceOptions, type ClipWindow } from '../../src/data/clip-source.ts';
import { UserError } from '../../src/errors.ts';
import { videoFrom } from '../../src/video/frames.ts';
import type { ReadOptions } from '../../src/video/read-types.ts';

const files = Array.from({ length: 20 }, (_, i) => `${i}.mp4`);
const size = { width: 8, height: 8 };
let root = '';

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'zoetrope-source-'));
  for (const file of files) await writeFile(join(root, file), '');
});
afterAll(async () => await rm(root, { recursive: true }));

/** Three windows of each file. */
const windows: readonly ClipWindow[] = files.flatMap((file) =>
  [0, 1, 2].map((start) => ({
    file,
    captions: { medium: file },
    tags: [],
    window: {
      source: { from: start * 5, to: start * 5 + 5 },
      start,
      frames: 5,
      rate: 5,
      retimed: false,
      leftOut: 0,
      repeated: 0,
      size,
    },
  })),
);

/** A reader whose answers come in any order, and whose frames say which window they are. */
function fakeReader(
  options: { breaks?: (file: string, start: number) => boolean; short?: string; shuffle?: number } = {},
) {
  const state = { underWay: 0, most: 0, reads: 0 };
  let turn = options.shuffle ?? 0;
  return {
    state,
    async read(path: string, { start = 0, maxFrames = 0, size: { width, height } = size }: ReadOptions = {}) {
      const file = path.split('/').at(-1) ?? '';
      state.reads++;
      state.most = Math.max(state.most, ++state.underWay);
      turn = (turn * 1103515245 + 12345) % 2147483648;
      for (let wait = turn % 7; options.shuffle !== undefined && wait > 0; wait--) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      state.underWay--;
      if (options.breaks?.(file, start) === true) throw new UserError(`${path}: damaged`);
      const frames = file === options.short ? maxFrames - 1 : maxFrames;
      const data = new Uint8Array(frames * width * height * 3).fill(Number.parseInt(file, 10) * 3 + start);
      const video = videoFrom(data, { width, height, rate: 5, start });
      return { video, info: {} as never, report: {} as never };
    },
  };
}

function source(options: Partial<ClipSourceOptions> = {}): ClipSource {
  return new ClipSource({ root, windows, seed: 7, reader: fakeReader(), ...options });
}

async function take(from: ClipSource, count: number): Promise<string[]> {
  const taken: string[] = [];
  for (let i = 0; i < count; i++) {
    const { position, epoch, clip, video } = await from.next();
    expect(video.data[0]).toBe(Number.parseInt(clip.file, 10) * 3 + clip.window.start);
    taken.push(`${position} ${epoch} ${clip.file} ${clip.window.start}`);
  }
  return taken;
}

describe('a clip source', () => {
  test('gives every window once in each epoch, in an order of its own', async () => {
    const names = (await take(source(), 180)).map((line) => line.split(' ').slice(1).join(' '));
    expect(new Set(names).size).toBe(180);
    const order = (epoch: number) => names.slice(epoch * 60, epoch * 60 + 60).map((name) => name.slice(2));
    expect(order(0)).not.toEqual(order(1));
    expect([...order(0)].sort()).toEqual([...order(2)].sort());
  });

  test('depends on the seed and nothing else', async () => {
    const plain = await take(source(), 150);
    for (const shuffle of [1, 2, 3]) {
      expect(await take(source({ reader: fakeReader({ shuffle }) }), 150)).toEqual(plain);
    }
    expect(await take(source({ prefetchBytes: 0 }), 150)).toEqual(plain);
    expect(await take(source({ seed: 8 }), 150)).not.toEqual(plain);
  });

  test('resumes at any position, through JSON, as if nothing had happened', async () => {
    const breaks = (file: string, start: number) => file === '3.mp4' && start > 0;
    const whole = await take(source({ reader: fakeReader({ breaks }) }), 150);
    for (const cut of [0, 1, 37, 58, 59, 60, 61, 120]) {
      const first = source({ reader: fakeReader({ breaks, shuffle: cut }) });
      const before = await take(first, cut);
      const state = JSON.parse(JSON.stringify(first.state));
      const after = await take(source({ state, reader: fakeReader({ breaks, shuffle: 5 }) }), 150 - cut);
      expect([...before, ...after], `cut at ${cut}`).toEqual(whole);
    }
  });

  test('passes over bad files, telling of each once, at the same place whatever the timing', async () => {
    const breaks = (file: string, start: number) => file === '11.mp4' || (file === '3.mp4' && start === 1);
    const runs: object[] = [];
    for (const shuffle of [0, 1, 2, 3]) {
      const told: string[] = [];
      const reader = fakeReader({ breaks, short: '5.mp4', shuffle });
      const bad = source({ reader, onBadFile: (file, reason) => told.push(`${file}: ${reason}`) });
      const taken = await take(bad, 150);
      expect(taken.some((line) => / (11|5)\.mp4/.test(line))).toBe(false);
      expect(told.length).toBe(3);
      expect(told.find((line) => line.startsWith('5.mp4'))).toMatch(/4 frames where 5 were planned/);
      runs.push({ taken, told, state: bad.state });
    }
    expect(runs.every((run) => JSON.stringify(run) === JSON.stringify(runs[0]))).toBe(true);
  });

  test('reads ahead within its bound in bytes', async () => {
    const bytes = 5 * 8 * 8 * 3;
    for (const [prefetchBytes, most] of [
      [0, 1],
      [bytes, 1],
      [4 * bytes + 1, 4],
      [1e9, 64],
    ] as const) {
      const reader = fakeReader({ shuffle: 1 });
      await take(source({ reader, prefetchBytes }), 100);
      expect(reader.state.reads).toBeLessThanOrEqual(100 + most);
      expect(reader.state.most).toBeLessThanOrEqual(most);
    }
  });

  test('says when nothing can be read', async () => {
    const reader = fakeReader({ breaks: () => true });
    await expect(source({ reader }).next()).rejects.toThrow(
      /^none of the 60 windows can be read \(.*damaged\)/,
    );
    expect(() => source({ windows: [] })).toThrow(/skips every clip/);
  });

  test('a fault of ours is not taken for a bad file', async () => {
    const reader = { read: () => Promise.reject(new TypeError('bug')) };
    await expect(source({ reader }).next()).rejects.toThrow(TypeError);
  });

  test('a file that vanished is a bad file', async () => {
    const [first] = windows;
    const gone = windows.map((window) =>
      window.file === '9.mp4' ? { ...window, file: 'gone.mp4' } : window,
    );
    const told: string[] = [];
    await take(source({ windows: gone, onBadFile: (_, reason) => told.push(reason) }), 57);
    expect(told).toEqual(['gone.mp4: no such file']);
    expect(first).toBeDefined();
  });

  test('notices a state of another dataset or seed', () => {
    const { state } = source();
    expect(() => source({ state, seed: 8 })).toThrow(/begun with seed 7, not 8/);
    expect(() => source({ state, windows: windows.slice(1) })).toThrow(/60 windows then, 59 now/);
    expect(() => source({ state: { ...state, position: -1 } })).toThrow(/checkpoint is damaged/);
  });
});
