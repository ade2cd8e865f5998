import { describe, expect, test } from 'vitest';
import { orientation } from '../../src/video/child/display-matrix.ts';
import { coverSize } from '../../src/video/child/filter.ts';
import { encodeHead, MessageAssembler } from '../../src/video/child/protocol.ts';
import { type Selection, type SelectTally, select } from '../../src/video/child/select.ts';
import { judge } from '../../src/video/child/shortfall.ts';
import type { FrameSource, SourceTally } from '../../src/video/child/source.ts';
import { seeded } from '../fuzz/mutate.ts';

/** A source of frames at `times` that counts how many are alive. */
function fakeSource(times: readonly number[], duration: number): FrameSource & { alive: number } {
  let at = 0;
  const source = {
    alive: 0,
    next: async () => {
      const time = times[at++];
      if (time === undefined) return undefined;
      source.alive++;
      return { time, duration, pixels: () => new Uint8Array(), free: () => void source.alive-- };
    },
  };
  return source as unknown as FrameSource & { alive: number };
}

async function shown(times: readonly number[], wanted: Partial<Selection>, duration = 0.1) {
  const source = fakeSource(times, duration);
  const tally: SelectTally = { given: 0, repeated: 0, dropped: 0, reachedEnd: false };
  const frames: [number, number][] = [];
  const all = { start: 0, end: Infinity, rate: null, maxFrames: Infinity, ...wanted };
  for await (const { time, frame } of select(source, all, tally)) frames.push([time, frame.time]);
  expect(source.alive, 'frames not freed').toBe(0);
  return { frames, tally, sources: frames.map(([, from]) => from) };
}

describe('selecting frames', () => {
  const tenth = [0, 0.1, 0.2, 0.3, 0.4];

  test('all of them with their own times', async () => {
    const { frames, tally } = await shown(tenth, {});
    expect(frames).toEqual(tenth.map((t) => [t, t]));
    expect(tally).toEqual({ given: 5, repeated: 0, dropped: 0, reachedEnd: true });
  });

  test('from start up to but not including end, without reading further', async () => {
    const { sources, tally } = await shown(tenth, { start: 0.1, end: 0.3 });
    expect(sources).toEqual([0.1, 0.2]);
    expect(tally.reachedEnd).toBe(false);
  });

  test('at most so many', async () => {
    expect((await shown(tenth, { maxFrames: 2 })).sources).toEqual([0, 0.1]);
    expect((await shown(tenth, { maxFrames: 2, rate: 20 })).frames).toEqual([
      [0, 0],
      [0.05, 0],
    ]);
  });

  test('half the rate leaves out every other frame and counts them', async () => {
    const { frames, tally } = await shown(tenth, { rate: 5 });
    expect(frames).toEqual([
      [0, 0],
      [0.2, 0.2],
      [0.4, 0.4],
    ]);
    expect(tally).toMatchObject({ repeated: 0, dropped: 2 });
  });

  test('twice the rate repeats every frame, the last to its end', async () => {
    const { sources, tally } = await shown(tenth, { rate: 20 });
    expect(sources).toEqual([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]);
    expect(tally).toMatchObject({ repeated: 5, dropped: 0 });
  });

  test('times rounded to milliseconds neither repeat nor drop at their own rate', async () => {
    const times = Array.from({ length: 300 }, (_, i) => Math.round((i * 1000) / 30) / 1000);
    const { frames, tally } = await shown(times, { rate: 30 }, 1 / 30);
    expect(frames.map(([, from]) => from)).toEqual(times);
    expect(tally).toMatchObject({ given: 300, repeated: 0, dropped: 0 });
  });

  test('property: re-timing shows the nearest frame at every tick', async () => {
    const next = seeded(7);
    for (let round = 0; round < 50; round++) {
      let time = 0;
      const times = Array.from({ length: 1 + (next() % 20) }, () => {
        const at = time;
        time += 0.01 + (next() % 1000) / 5000;
        return at;
      });
      const rate = 1 + (next() % 60);
      const start = (next() % 100) / 100;
      const end = times.at(-1)! + 0.05;
      // So close to the end it depends on the frames before whether there is a tick at all.
      if ((end - start) * rate < 0.5) continue;
      const { frames } = await shown(times, { rate, start }, 0.05);
      for (const [k, [tick, from]] of frames.entries()) {
        expect(tick).toBeCloseTo(start + k / rate, 9);
        const nearest = Math.min(...times.map((t) => Math.abs(t - tick)));
        expect(Math.abs(from - tick)).toBeLessThanOrEqual(nearest + 2e-6);
      }
      expect(frames.length).toBe(Math.ceil((end - start) * rate - 0.25 - 1e-6));
    }
  });
});

describe('judging completeness', () => {
  const whole: SourceTally = {
    fromStart: true,
    frames: 60,
    coded: 62,
    hidden: 2,
    failed: 0,
    damaged: 0,
    claimedFrames: 62,
    claimedDuration: 2,
    lastEnd: 2,
    offset: 0,
    rate: 30,
    brokenOff: undefined,
  };

  test('nothing missing', () => {
    expect(judge(whole, true, 60)).toBeUndefined();
    expect(
      judge({ ...whole, claimedFrames: undefined, claimedDuration: undefined }, true, 60),
    ).toBeUndefined();
  });

  test.each<[string, Partial<SourceTally>, RegExp]>([
    ['fewer pictures than claimed', { coded: 40, hidden: 0, frames: 40 }, /claims 62 frames and holds 40/],
    ['pictures that gave nothing', { frames: 58 }, /2 coded pictures gave no frame/],
    ['pictures that failed', { failed: 1, frames: 59 }, /1 coded picture could not be decoded/],
    ['damaged frames', { damaged: 3 }, /3 frames damaged/],
    ['ends early', { lastEnd: 1.9, claimedFrames: undefined }, /ends at 1.90 s of 2.00 s/],
    ['broken off', { brokenOff: 'the file cannot be read further' }, /cannot be read further/],
  ])('%s', (_, change, reason) => {
    expect(judge({ ...whole, ...change }, true, 50)?.reason).toMatch(reason);
  });

  test('counts are not compared when only a part was read', () => {
    const part = { ...whole, coded: 10, hidden: 0, frames: 10, lastEnd: 0.3 };
    expect(judge(part, false, 5)).toBeUndefined();
    expect(judge({ ...part, fromStart: false, lastEnd: 2 }, true, 5)).toBeUndefined();
  });
});

describe('display matrix', () => {
  const matrix = (a: number, b: number, c: number, d: number): Uint8Array =>
    new Uint8Array(Int32Array.from([a, b, 0, c, d, 0, 0, 0, 16384].map((v) => v * 65536)).buffer);

  test.each([
    ['upright', matrix(1, 0, 0, 1), 0, false],
    ['quarter turn right', matrix(0, 1, -1, 0), 90, false],
    ['half turn', matrix(-1, 0, 0, -1), 180, false],
    ['quarter turn left', matrix(0, -1, 1, 0), 270, false],
    ['mirrored', matrix(-1, 0, 0, 1), 0, true],
    ['upside down', matrix(1, 0, 0, -1), 180, true],
    ['none', null, 0, false],
    ['too short', new Uint8Array(8), 0, false],
  ])('%s', (_, bytes, rotation, mirrored) => {
    expect(orientation(bytes)).toEqual({ rotation, mirrored });
  });
});

test('covering never leaves a gap and keeps the aspect ratio within a pixel', () => {
  const next = seeded(3);
  for (let i = 0; i < 200; i++) {
    const side = (): number => 1 + (next() % 2000);
    const [shown, wanted] = [
      { width: side(), height: side() },
      { width: side(), height: side() },
    ];
    const size = coverSize(shown, wanted);
    expect(size.width).toBeGreaterThanOrEqual(wanted.width);
    expect(size.height).toBeGreaterThanOrEqual(wanted.height);
    const scale = Math.max(wanted.width / shown.width, wanted.height / shown.height);
    expect(Math.abs(size.width - shown.width * scale)).toBeLessThanOrEqual(1);
    expect(Math.abs(size.height - shown.height * scale)).toBeLessThanOrEqual(1);
  }
});

test('messages survive any cutting of the pipe', () => {
  const next = seeded(11);
  const sent = Array.from({ length: 40 }, (_, i) => ({
    header: { resident: i, answer: { i, text: 'é'.repeat(next() % 50) } },
    payload: Uint8Array.from({ length: i % 3 === 0 ? 0 : next() % 5000 }, () => next()),
  }));
  const bytes = Buffer.concat(sent.flatMap((m) => [encodeHead(m.header, m.payload.length), m.payload]));
  const got: { header: unknown; payload: Uint8Array }[] = [];
  const assembler = new MessageAssembler((header, payload) => got.push({ header, payload }));
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + (next() % 700);
    assembler.push(bytes.subarray(at, at + length));
    at += length;
  }
  expect(got).toEqual(sent);
  expect(() => new MessageAssembler(() => {}).push(Buffer.alloc(8, 0xff))).toThrow(/too long/);
});
