import { describe, expect, test } from 'vitest';
import { i420Bytes, i420ToRgb, rgbToI420, rgbToNearestI420 } from '../../src/video/color.ts';
import { seeded } from '../fuzz/mutate.ts';

const flat = (colour: readonly number[], width: number, height: number): Uint8Array =>
  Uint8Array.from({ length: width * height * 3 }, (_, i) => colour[i % 3]!);

describe('BT.709 limited', () => {
  // From the definition, computed in floating point by hand: Y = 16 + 219 E'y, Cb = 128 + 224 E'pb, Cr = 128 + 224 E'pr.
  test.each([
    ['white', [255, 255, 255], [235, 128, 128]],
    ['black', [0, 0, 0], [16, 128, 128]],
    ['grey', [128, 128, 128], [126, 128, 128]],
    ['red', [255, 0, 0], [63, 102, 240]],
    ['green', [0, 255, 0], [173, 42, 26]],
    ['blue', [0, 0, 255], [32, 240, 118]],
    ['yellow', [255, 255, 0], [219, 16, 138]],
    ['cyan', [0, 255, 255], [188, 154, 16]],
    ['magenta', [255, 0, 255], [78, 214, 230]],
  ])('%s', (_, rgb, [y, u, v]) => {
    const yuv = rgbToI420(flat(rgb, 4, 4), 4, 4);
    expect([...yuv]).toEqual([...Array(16).fill(y), ...Array(4).fill(u), ...Array(4).fill(v)]);
  });

  test('a flat colour comes back within 2 levels, and greys within 1', () => {
    // 8-bit chroma has steps of 2.1 levels of blue, 1.8 of red.
    for (let r = 0; r < 256; r += 15) {
      for (let g = 0; g < 256; g += 15) {
        for (let b = 0; b < 256; b += 15) {
          const back = i420ToRgb(rgbToI420(flat([r, g, b], 2, 2), 2, 2), 2, 2);
          const worst = Math.max(Math.abs(back[0]! - r), Math.abs(back[1]! - g), Math.abs(back[2]! - b));
          expect(worst, `${r} ${g} ${b}`).toBeLessThanOrEqual(r === g && g === b ? 1 : 2);
        }
      }
    }
  });
});

describe('layout', () => {
  test.each([
    [1, 1],
    [2, 3],
    [3, 2],
    [5, 7],
    [6, 4],
  ])('%i x %i keeps a flat colour to its edges', (width, height) => {
    const yuv = rgbToI420(flat([200, 30, 90], width, height), width, height);
    expect(yuv.length).toBe(i420Bytes(width, height));
    const back = i420ToRgb(yuv, width, height);
    expect(new Set(back.filter((_, i) => i % 3 === 0)).size).toBe(1);
    expect(Math.abs(back.at(-3)! - 200)).toBeLessThanOrEqual(2);
  });

  test('four channels give the same bytes as three, and come back opaque', () => {
    const rgb = Uint8Array.from({ length: 6 * 4 * 3 }, (_, i) => (i * 37) & 255);
    const rgba = Uint8Array.from({ length: 6 * 4 * 4 }, (_, i) =>
      i % 4 === 3 ? 9 : rgb[Math.floor(i / 4) * 3 + (i % 4)]!,
    );
    const yuv = rgbToI420(rgb, 6, 4);
    expect(rgbToI420(rgba, 6, 4, 4)).toEqual(yuv);
    const back = i420ToRgb(yuv, 6, 4, 4);
    expect(back.filter((_, i) => i % 4 === 3).every((a) => a === 255)).toBe(true);
    expect(back.filter((_, i) => i % 4 !== 3)).toEqual(i420ToRgb(yuv, 6, 4));
  });

  test('chroma lies at the left column: a step between columns 1 and 2 is halfway in the second sample', () => {
    // Columns: black black red red. Weights 1 2 1 around column 2: a quarter black, three quarters red.
    const row = [0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 0, 0];
    const yuv = rgbToI420(Uint8Array.from([...row, ...row]), 4, 2);
    const v = yuv.subarray(8 + 2);
    expect(v[0]).toBe(128);
    expect(v[1]).toBe(Math.round(128 + 0.75 * 112));
  });
});

describe('the nearest I420', () => {
  const blockAt = (x: number, y: number): number[] =>
    x > 8 && y > 5 && x < 22 ? [230, 20, 40] : [20, 120, 200];
  const edges = Uint8Array.from({ length: 31 * 21 * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return blockAt(pixel % 31, Math.floor(pixel / 31))[i % 3]!;
  });
  const squaredError = (a: Uint8Array): number =>
    a.reduce((sum, value, i) => sum + (value - edges[i]!) ** 2, 0);

  test('is nearer at edges of saturated colours', () => {
    const plain = squaredError(i420ToRgb(rgbToI420(edges, 31, 21), 31, 21));
    const nearest = squaredError(i420ToRgb(rgbToNearestI420(edges, 31, 21), 31, 21));
    expect(nearest).toBeLessThan(0.8 * plain);
  });

  // The squared distance of every pixel's own chroma from what is shown, in levels of one plane, by the definition alone.
  const distance = (rgb: Uint8Array, yuv: Uint8Array, width: number, height: number): number => {
    const half = Math.ceil(width / 2);
    const rows = Math.ceil(height / 2);
    const at = (x: number, y: number): number =>
      yuv[width * height + Math.max(0, Math.min(rows - 1, y)) * half + Math.min(half - 1, x)]!;
    let sum = 0;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [r, g, b] = [0, 1, 2].map((c) => rgb[(y * width + x) * 3 + c]!) as [number, number, number];
        const own = 128 + ((b - (0.2126 * r + 0.7152 * g + 0.0722 * b)) / 1.8556) * (224 / 255);
        const row = (line: number): number => (at(x >> 1, line) + at((x + 1) >> 1, line)) / 2;
        const near = y >> 1;
        sum += (own - (0.75 * row(near) + 0.25 * row(near + (y % 2 === 0 ? -1 : 1)))) ** 2;
      }
    }
    return sum;
  };

  test.each([
    [1, 1],
    [2, 5],
    [7, 4],
    [12, 10],
  ])('%i x %i: no other chroma is nearer to that of the pixels', (width, height) => {
    const next = seeded(width);
    const rgb = Uint8Array.from({ length: width * height * 3 }, () => 60 + (next() % 130));
    const yuv = rgbToNearestI420(rgb, width, height);
    const least = distance(rgb, yuv, width, height);
    for (let i = 0; i < Math.ceil(width / 2) * Math.ceil(height / 2); i++) {
      // Rounding each sample by half a level can make a step of 2 an improvement, never one of 3.
      for (const step of [-3, 3]) {
        const other = Uint8Array.from(yuv);
        other[width * height + i]! += step;
        expect(distance(rgb, other, width, height)).toBeGreaterThan(least);
      }
    }
  });

  test('gives flat colours back within 2 levels', () => {
    for (let seed = 0; seed < 512; seed++) {
      const rgb = [(seed % 8) * 36, (Math.floor(seed / 8) % 8) * 36, Math.floor(seed / 64) * 36];
      const back = i420ToRgb(rgbToNearestI420(flat(rgb, 4, 4), 4, 4), 4, 4);
      for (const [i, value] of back.entries())
        expect(Math.abs(value - rgb[i % 3]!), `${rgb}`).toBeLessThanOrEqual(2);
    }
  });
});
