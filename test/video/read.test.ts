import { readFileSync, writeFileSync } from 'node:fs';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { contactSheet } from '../../src/video/contact-sheet.ts';
import { frameAt, joinFrames, sliceFrames, type Video, videoFrom } from '../../src/video/frames.ts';
import { MediaReader, probe, readVideo } from '../../src/video/read.ts';
import { writeVideo } from '../../src/video/write.ts';
import { balls, psnr, temporaryFolder } from './fixtures.ts';

const folder = temporaryFolder();
const reader = new MediaReader();
const clip = balls(96, 64, 60, 20);
let whole: Video;

beforeAll(async () => {
  await writeVideo(clip, folder.file('clip.mp4'));
  await writeVideo(clip, folder.file('clip.webm'));
  whole = (await reader.read(folder.file('clip.mp4'))).video;
});

afterAll(async () => {
  await reader[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

describe('ranges', () => {
  // 3 s at 20 frames a second; a range above 1 s is sought, and must give the same bytes as decoding everything.
  test.each([
    [0, 0.5, 0, 10],
    [0.52, 0.7, 11, 14],
    [1.4, 2, 28, 40],
    [2.05, 2.06, 41, 42],
    [2.9, 99, 58, 60],
  ])('%d to %d s is that slice of the whole', async (start, end, from, to) => {
    for (const name of ['clip.mp4', 'clip.webm']) {
      const { video } = await reader.read(folder.file(name), { start, end });
      const all = name === 'clip.mp4' ? whole : (await reader.read(folder.file(name))).video;
      expect(video.frames).toBe(to - from);
      expect([...video.timestamps]).toEqual([...sliceFrames(all, from, to).timestamps]);
      expect(Buffer.compare(video.data, sliceFrames(all, from, to).data)).toBe(0);
    }
  });

  test('re-timing inside a range takes the frames nearest to its ticks', async () => {
    const { video, report } = await reader.read(folder.file('clip.mp4'), { start: 1.5, end: 2.5, rate: 8 });
    expect([...video.timestamps]).toEqual([1.5, 1.625, 1.75, 1.875, 2, 2.125, 2.25, 2.375]);
    expect(video.rate).toBe(8);
    // Ticks at 32.5, 37.5 ... frames take the earlier of the two.
    const expected = [30, 32, 35, 37, 40, 42, 45, 47].map((i) => sliceFrames(whole, i, i + 1));
    expect(Buffer.compare(video.data, joinFrames(expected).data)).toBe(0);
    expect(report).toMatchObject({ frames: 8, repeated: 0 });
    expect(report.dropped).toBeGreaterThan(8);
  });
});

describe('streams', () => {
  test('pieces are consecutive, bounded, and join to the whole', async () => {
    const big = balls(640, 480, 20);
    await writeVideo(big, folder.file('big.mp4'));
    await using stream = await reader.stream(folder.file('big.mp4'));
    expect(stream.size).toEqual({ width: 640, height: 480 });
    const pieces: Video[] = [];
    for await (const piece of stream) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(1);
    for (const piece of pieces) expect(piece.data.length).toBeLessThanOrEqual(16 * 2 ** 20);
    const direct = await readVideo(folder.file('big.mp4'));
    expect(Buffer.compare(joinFrames(pieces).data, direct.data)).toBe(0);
    expect(stream.report).toEqual({ frames: 20, repeated: 0, dropped: 0, hidden: 0 });
  });
});

describe('sizes', () => {
  test('stretch and cover', async () => {
    const size = { width: 32, height: 32 };
    const stretched = await readVideo(folder.file('clip.mp4'), { size, maxFrames: 1 });
    const covered = await readVideo(folder.file('clip.mp4'), { size, maxFrames: 1, fit: 'cover' });
    expect(stretched).toMatchObject(size);
    // The middle 64 of 96 columns, at half size.
    const raw = { width: 96, height: 64, channels: 3 as const };
    const still = sharp(Buffer.from(frameAt(whole, 0)), { raw });
    const middle = await still
      .extract({ left: 16, top: 0, width: 64, height: 64 })
      .resize(32, 32)
      .raw()
      .toBuffer();
    expect(psnr(covered, videoFrom(middle, { ...size, rate: 1 }))).toBeGreaterThan(35);
    expect(psnr(stretched, covered)).toBeLessThan(30);
  });

  test('downscaling does not alias: fine stripes become even grey', async () => {
    const stripes = Uint8Array.from({ length: 128 * 128 * 3 * 2 }, (_, i) =>
      Math.floor(i / 3) % 2 === 0 ? 0 : 255,
    );
    await writeVideo(videoFrom(stripes, { width: 128, height: 128, rate: 24 }), folder.file('stripes.mp4'));
    await writeVideo(
      videoFrom(stripes.subarray(0, stripes.length / 2), { width: 128, height: 128, rate: 1 }),
      folder.file('stripes.png'),
    );
    for (const name of ['stripes.mp4', 'stripes.png']) {
      const { data } = await readVideo(folder.file(name), { size: { width: 20, height: 20 } });
      // A filter of finite width leaves a little ripple; aliasing would leave stripes of full height.
      expect(Math.max(...data) - Math.min(...data), name).toBeLessThan(48);
    }
  });
});

describe('orientation', () => {
  // A file's matrix, in its track header, is the only thing that changes.
  test.each([
    [90, [0, 1, -1, 0], (x: number, y: number) => [y, 63 - x]],
    [180, [-1, 0, 0, -1], (x: number, y: number) => [95 - x, 63 - y]],
    [270, [0, -1, 1, 0], (x: number, y: number) => [95 - y, x]],
  ] as const)('turned by %i degrees', async (rotation, [a, b, c, d], from) => {
    const bytes = readFileSync(folder.file('clip.mp4'));
    const matrix = bytes.indexOf('tkhd') + 4 + 40;
    for (const [i, v] of [a, b, 0, c, d, 0].entries()) bytes.writeInt32BE(v * 65536, matrix + i * 4);
    const path = folder.file(`turned-${rotation}.mp4`);
    writeFileSync(path, bytes);
    const { video, info } = await reader.read(path, { maxFrames: 1 });
    const turned = rotation !== 180;
    expect(info).toMatchObject({ rotation, width: turned ? 64 : 96, height: turned ? 96 : 64 });
    for (let y = 0; y < video.height; y++) {
      for (let x = 0; x < video.width; x++) {
        const [sx, sy] = from(x, y);
        expect(video.data[(y * video.width + x) * 3]).toBe(whole.data[(sy! * 96 + sx!) * 3]);
      }
    }
  });
});

describe('pictures', () => {
  test('transparency lies on the background asked for, without fringes', async () => {
    const path = folder.file('half.png');
    const rgba = Uint8Array.from(
      { length: 64 * 64 * 4 },
      (_, i) => [0, 200, 0, Math.floor(i / 4) % 64 < 32 ? 255 : 0][i % 4]!,
    );
    await sharp(rgba, { raw: { width: 64, height: 64, channels: 4 } })
      .png()
      .toFile(path);
    const white = await readVideo(path, { size: { width: 8, height: 8 } });
    expect([...white.data.subarray(0, 3)]).toEqual([0, 200, 0]);
    expect([...white.data.subarray(21, 24)]).toEqual([255, 255, 255]);
    const red = await readVideo(path, { background: [250, 0, 0] });
    expect([...red.data.subarray(189, 192)]).toEqual([250, 0, 0]);
  });

  test('an animated WebP with transparency too', async () => {
    const path = folder.file('half.webp');
    const frame = (alpha: number): number[] =>
      Array.from({ length: 32 * 32 }, () => [0, 200, 0, alpha]).flat();
    const tall = Uint8Array.from([...frame(255), ...frame(0)]);
    const raw = { width: 32, height: 64, channels: 4 as const, pageHeight: 32 };
    await sharp(tall, { raw })
      .webp({ lossless: true, delay: [100, 100] })
      .toFile(path);
    const video = await readVideo(path, { background: [9, 9, 250] });
    expect(video.frames).toBe(2);
    expect(Math.abs(video.data[1]! - 200)).toBeLessThanOrEqual(1);
    expect([...video.data.subarray(32 * 32 * 3, 32 * 32 * 3 + 3)]).toEqual([9, 9, 250]);
  });

  test('EXIF orientation', async () => {
    const path = folder.file('exif.jpg');
    const left = Uint8Array.from({ length: 40 * 20 * 3 }, (_, i) => (Math.floor(i / 3) % 40 < 20 ? 250 : 5));
    await sharp(left, { raw: { width: 40, height: 20, channels: 3 } })
      .withMetadata({ orientation: 6 })
      .jpeg()
      .toFile(path);
    const video = await readVideo(path);
    expect([video.width, video.height]).toEqual([20, 40]);
    expect(video.data[0]).toBeGreaterThan(240);
    expect(video.data.at(-1)).toBeLessThan(15);
    expect((await probe(path)).rotation).toBe(90);
  });
});

describe('contact sheets', () => {
  test('show the first frame first and the last one last, with times below', async () => {
    const sheet = await contactSheet(clip, { frames: 4, columns: 2, cell: 96 });
    expect(sheet).toMatchObject({ frames: 1, width: 2 * 100 + 4, height: 2 * (64 + 11 + 4) + 4 });
    const pixel = (x: number, y: number): number[] => [
      ...sheet.data.subarray((y * sheet.width + x) * 3).subarray(0, 3),
    ];
    expect(pixel(4, 4)).toEqual([...clip.data.subarray(0, 3)]);
    const last = frameAt(clip, 59);
    expect(pixel(sheet.width - 5, sheet.height - 16)).toEqual([...last.subarray(-3)]);
    const label = sheet.data.subarray(sheet.width * 3 * 71, sheet.width * 3 * 76);
    expect(label.includes(200)).toBe(true);
  });

  test('refuse nonsense', async () => {
    await expect(contactSheet(sliceFrames(clip, 0, 0))).rejects.toThrow(/no frames/);
    await expect(contactSheet(clip, { cell: 0 })).rejects.toThrow(/cell 0/);
  });
});
