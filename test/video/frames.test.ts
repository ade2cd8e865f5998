import { describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { formatOf } from '../../src/video/formats.ts';
import { durationOf, frameAt, joinFrames, sliceFrames, videoFrom } from '../../src/video/frames.ts';
import { rationalRate } from '../../src/video/rate.ts';

const video = videoFrom(
  Uint8Array.from({ length: 5 * 2 * 3 * 3 }, (_, i) => i),
  { width: 3, height: 2, rate: 10, start: 1 },
);

describe('videos', () => {
  test('timestamps follow the rate', () => {
    expect([...video.timestamps]).toEqual([1, 1.1, 1.2, 1.3, 1.4]);
    expect(durationOf(video)).toBeCloseTo(0.5);
  });

  test('slices and joins are inverse, and a slice shares memory', () => {
    const [a, b] = [sliceFrames(video, 0, 2), sliceFrames(video, 2)];
    expect(joinFrames([a, b])).toEqual(video);
    expect(b.data.buffer).toBe(video.data.buffer);
    expect([...frameAt(b, 0)]).toEqual([...frameAt(video, 2)]);
    expect([...sliceFrames(video, -1).timestamps]).toEqual([1.4]);
    expect([...sliceFrames(video, -1).data]).toEqual([...frameAt(video, 4)]);
    expect(sliceFrames(video, 3, 2).frames).toBe(0);
    expect(sliceFrames(video, 9).frames).toBe(0);
  });

  test('refuses what is not a video', () => {
    expect(() => videoFrom(new Uint8Array(10), { width: 3, height: 2, rate: 24 })).toThrow(UserError);
    expect(() => videoFrom(new Uint8Array(18), { width: 3, height: 2, rate: 0 })).toThrow(/above 0/);
    expect(() => videoFrom(new Uint8Array(18), { width: 1.5, height: 4, rate: 1 })).toThrow(/whole/);
    expect(() => joinFrames([])).toThrow(/no frames/);
    expect(() => frameAt(video, 5)).toThrow(RangeError);
  });
});

test.each([
  ['a.mp4', 'mp4'],
  ['A.MP4', 'mp4'],
  ['x/y.z/b.webm', 'webm'],
  ['b.JPG', 'jpeg'],
  ['frames', 'frames'],
  ['clip.mp4/', 'frames'],
  ['a.b/frames', 'frames'],
  ['a.mov', undefined],
  ['.png', 'frames'],
])('the ending of %s means %s', (path, format) => {
  expect(formatOf(path)).toBe(format);
});

test.each([
  [24, 24, 1],
  [23.976, 24000, 1001],
  [24000 / 1001, 24000, 1001],
  [29.97, 30000, 1001],
  [12.5, 25, 2],
  [0.5, 1, 2],
  [7.123, 7123, 1000],
])('the rate %d is %i/%i', (rate, num, den) => {
  expect(rationalRate(rate)).toEqual({ num, den });
});
