import { describe, expect, it } from 'vitest';
import { keyFromSeed, randomInts } from '../../src/random/philox.ts';
import { videoFrom } from '../../src/video/frames.ts';
import { resizeVideo } from '../../src/video/resize.ts';

/** A video whose pixels are a function of their place; three channels alike. */
function picture(
  width: number,
  height: number,
  frames: number,
  level: (x: number, y: number, t: number) => number,
) {
  const data = new Uint8Array(frames * height * width * 3);
  let i = 0;
  for (let t = 0; t < frames; t++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) data[i++] = level(x, y, t);
  return videoFrom(data, { width, height, rate: 5, start: 1 });
}

describe('resizing', () => {
  it('changes nothing at the same size, and one colour at none', () => {
    const noise = videoFrom(Uint8Array.from(randomInts(keyFromSeed(1), 2 * 12 * 3, 256)), {
      width: 4,
      height: 3,
      rate: 5,
    });
    expect(resizeVideo(noise, { width: 4, height: 3 })).toBe(noise);
    for (const size of [
      { width: 5, height: 9 },
      { width: 1, height: 1 },
      { width: 2, height: 7 },
    ]) {
      const grey = resizeVideo(
        picture(4, 3, 2, () => 77),
        size,
      );
      expect([grey.width, grey.height, grey.frames]).toEqual([size.width, size.height, 2]);
      expect(new Set(grey.data)).toEqual(new Set([77]));
      expect([...grey.timestamps]).toEqual([1, 1.2]);
    }
  });

  it.each([2, 3, 0.5])('keeps a ramp a ramp, %d times as large', (scale) => {
    const ramp = picture(16, 16, 1, (x, y) => 8 * x + 4 * y);
    const size = { width: 16 * scale, height: 16 * scale };
    const { data } = resizeVideo(ramp, size);
    // Inside, where no border bends it.
    for (let y = 4; y < size.height - 4; y++)
      for (let x = 4; x < size.width - 4; x++) {
        const expected = 8 * ((x + 0.5) / scale - 0.5) + 4 * ((y + 0.5) / scale - 0.5);
        expect(Math.abs(data[(y * size.width + x) * 3]! - expected)).toBeLessThanOrEqual(0.5);
      }
  });

  it('averages what gets too fine to be seen', () => {
    const board = picture(32, 32, 1, (x, y) => ((x + y) % 2 === 0 ? 0 : 200));
    const { data } = resizeVideo(board, { width: 8, height: 8 });
    for (let y = 1; y < 7; y++)
      for (let x = 1; x < 7; x++) expect(Math.abs(data[(y * 8 + x) * 3]! - 100)).toBeLessThanOrEqual(1);
  });

  it('treats each frame and channel by itself', () => {
    const two = picture(4, 4, 2, (x, _, t) => (t === 0 ? 10 * x : 200));
    const { data } = resizeVideo(two, { width: 8, height: 8 });
    expect(new Set(data.subarray(8 * 8 * 3))).toEqual(new Set([200]));
    const red = { ...two, data: two.data.map((byte, i) => (i % 3 === 0 ? byte : 0)) };
    const resized = resizeVideo(red, { width: 8, height: 8 }).data;
    expect(resized.filter((_, i) => i % 3 === 0)).toEqual(data.filter((_, i) => i % 3 === 0));
    expect(new Set(resized.filter((_, i) => i % 3 !== 0))).toEqual(new Set([0]));
  });
});
