import { describe, expect, it } from 'vitest';
import { degraded, gaussianKernel } from '../../src/evaluation/degrade.ts';
import { proportion } from '../../src/evaluation/interval.ts';
import { flickerOf, meanSquaredError, psnrOf, ssim } from '../../src/evaluation/picture-quality.ts';
import { keyFromSeed } from '../../src/random/philox.ts';
import { type Video, videoFrom } from '../../src/video/frames.ts';

const size = { width: 24, height: 20 };

/** A video of grey values by frame, row and column. */
function greys(frames: number, value: (t: number, y: number, x: number) => number): Video {
  const { width, height } = size;
  const data = Uint8Array.from({ length: 3 * frames * width * height }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return value(Math.floor(pixel / (width * height)), Math.floor(pixel / width) % height, pixel % width);
  });
  return videoFrom(data, { ...size, rate: 12 });
}

const texture = greys(3, (t, y, x) => 128 + 60 * Math.sin(0.7 * x + t) * Math.cos(0.5 * y));

describe('PSNR', () => {
  it('is 20 log10(255 / d) for values that are all off by d', () => {
    const off = greys(1, () => 110);
    expect(
      psnrOf(
        meanSquaredError(
          greys(1, () => 100),
          off,
        ),
      ),
    ).toBeCloseTo(20 * Math.log10(255 / 10), 10);
    expect(psnrOf(meanSquaredError(off, off))).toBe(Number.POSITIVE_INFINITY);
  });

  it('falls by the variance of noise', () => {
    const noisy = degraded(texture, { blur: 0, noise: 5 }, keyFromSeed(1));
    // Rounding adds 1/12 to the variance.
    expect(psnrOf(meanSquaredError(texture, noisy))).toBeCloseTo(psnrOf(25 + 1 / 12), 0);
  });

  it('refuses videos of different sizes', () => {
    expect(() =>
      meanSquaredError(
        greys(1, () => 0),
        greys(2, () => 0),
      ),
    ).toThrow('only videos of one size');
  });
});

describe('SSIM', () => {
  it('is 1 for equal videos, and the term of light alone for flat ones (Wang et al. 2004, eq. 6)', () => {
    expect(ssim(texture, texture)).toBeCloseTo(1, 12);
    const c1 = (0.01 * 255) ** 2;
    const expected = (2 * 100 * 140 + c1) / (100 ** 2 + 140 ** 2 + c1);
    expect(
      ssim(
        greys(2, () => 100),
        greys(2, () => 140),
      ),
    ).toBeCloseTo(expected, 10);
  });

  it('is about -1 for the negative, symmetric, and lower the more noise there is', () => {
    const negative = { ...texture, data: texture.data.map((value) => 256 - value) };
    expect(ssim(texture, negative)).toBeLessThan(-0.9);
    const noisy = (noise: number) => degraded(texture, { blur: 0, noise }, keyFromSeed(2));
    const values = [2, 8, 32].map((noise) => ssim(texture, noisy(noise)));
    expect(values).toEqual(values.toSorted((a, b) => b - a));
    expect(ssim(noisy(8), texture)).toBeCloseTo(values[1]!, 12);
  });
});

describe('flicker', () => {
  it('is nothing for even change, and 4 d for values that go up and down by d', () => {
    expect(flickerOf(greys(5, (t, y, x) => 10 * t + y + x))).toBe(0);
    expect(flickerOf(greys(6, (t) => 100 + (t % 2 === 0 ? 7 : -7)))).toBe(28);
    expect(flickerOf(greys(2, (t) => 100 * t))).toBe(0);
  });
});

describe('spoiling', () => {
  it('keeps flat frames, and blurs an edge by the Gaussian', () => {
    const flat = greys(1, () => 90);
    expect(degraded(flat, { blur: 1.2, noise: 0, halved: true }, keyFromSeed(0)).data).toEqual(flat.data);
    const kernel = gaussianKernel(1.2);
    expect(kernel.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 12);
    const edge = greys(1, (_t, _y, x) => (x < 12 ? 0 : 200));
    const soft = degraded(edge, { blur: 1.2, noise: 0 }, keyFromSeed(0));
    const reach = (kernel.length - 1) / 2;
    const right = kernel.slice(reach + 1).reduce((sum, value) => sum + value, 0);
    expect(soft.data[3 * (10 * 24 + 11)]).toBe(Math.round(200 * right));
  });
});

describe('95% intervals', () => {
  it('are those of Wilson (1927)', () => {
    // Values of Newcombe (1998), table I, method 3.
    for (const [right, asked, low, high] of [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ] as const) {
      const found = proportion(right, asked);
      expect(found.low).toBeCloseTo(low, 4);
      expect(found.high).toBeCloseTo(high, 4);
    }
    expect(proportion(0, 0)).toEqual({ right: 0, asked: 0, share: 0, low: 0, high: 1 });
  });
});
