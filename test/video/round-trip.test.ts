import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { renderWorld } from '../../src/data/worlds/render.ts';
import { makeWorld, worldKey } from '../../src/data/worlds/world.ts';
import { sliceFrames, type Video, videoFrom } from '../../src/video/frames.ts';
import { MediaReader } from '../../src/video/read.ts';
import { MediaWriter, writeVideo } from '../../src/video/write.ts';
import {
  balls,
  hasProgram,
  largestTimeError,
  namesIn,
  noSharedData,
  psnr,
  sharedData,
  temporaryFolder,
} from './fixtures.ts';

const reader = new MediaReader();
const folder = temporaryFolder();
const clip = balls(128, 128, 33);

afterAll(async () => {
  await reader[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

describe('what is written is read back', () => {
  // Lossy formats: 34 dB at the default quality is the promise for small synthetic clips. Times: WebM and WebP count
  // milliseconds, GIF hundredths.
  test.each([
    ['mp4', 34, 1e-9],
    ['webm', 34, 0.00051],
    ['gif', 34, 0.0051],
    ['webp', 34, 0.00051],
    ['frames', Infinity, 1e-9],
  ])('%s', async (format, decibels, seconds) => {
    const path = folder.file(format === 'frames' ? 'frames' : `clip.${format}`);
    const written = await writeVideo(clip, path);
    expect(written).toMatchObject({ path, format, frames: clip.frames });
    const { video, info, report } = await reader.read(path);
    expect(report).toEqual({ frames: clip.frames, repeated: 0, dropped: 0, hidden: 0 });
    expect([video.width, video.height, video.frames]).toEqual([128, 128, 33]);
    expect(psnr(clip, video)).toBeGreaterThanOrEqual(decibels);
    expect(largestTimeError(clip, video)).toBeLessThanOrEqual(seconds);
    expect(video.rate).toBeCloseTo(24, format === 'gif' ? 0 : 6);
    if (info.duration !== undefined) expect(info.duration).toBeCloseTo(33 / 24, 1);
  });

  test.each([
    ['png', Infinity],
    ['jpeg', 34],
    ['webp', 30],
  ])('one frame as %s', async (format, decibels) => {
    const path = folder.file(`still.${format}`);
    const still = sliceFrames(clip, 0, 1);
    await writeVideo(still, path);
    const { video, info } = await reader.read(path);
    expect(info).toMatchObject({ still: true, frames: 1, rate: 1, format });
    expect(video).toMatchObject({ frames: 1, rate: 1 });
    expect(psnr(still, video)).toBeGreaterThanOrEqual(decibels);
  });

  test.each(['mp4', 'webm', 'webp'])('uneven times as %s', async (format) => {
    const timestamps = Float64Array.from([5, 5.04, 5.2, 5.22, 5.9, 6.5]);
    const uneven: Video = { ...sliceFrames(clip, 0, 6), timestamps, rate: 4 };
    const path = folder.file(`uneven.${format}`);
    await writeVideo(uneven, path);
    const { video } = await reader.read(path);
    expect(video.frames).toBe(6);
    expect(video.timestamps[0]).toBe(0);
    expect(largestTimeError(uneven, video)).toBeLessThanOrEqual(0.00051);
  });

  test.each([
    ['a long frame late', [0, 0.04, 0.2, 0.22, 0.6, 0.65, 1.1], 1.3],
    ['long frames early', [0, 1, 2, 2.1, 2.2, 2.3, 2.4], 2.6],
    ['a long frame in the middle', [0, 0.1, 0.2, 3, 3.1, 3.2, 3.3], 3.5],
  ])('an mp4 is as long as it shows: %s', async (_, times, seconds) => {
    const timestamps = Float64Array.from(times);
    const path = folder.file('length.mp4');
    const uneven: Video = { ...sliceFrames(clip, 0, 7), timestamps, rate: 5 };
    await writeVideo(uneven, path);
    const { video, info } = await reader.read(path);
    expect(largestTimeError(uneven, video)).toBeLessThan(1e-9);
    expect(info.duration).toBeCloseTo(seconds, 3);
  });

  test('pieces give the same file as the whole', async () => {
    const pieces = async function* (): AsyncGenerator<Video> {
      for (let at = 0; at < clip.frames; at += 10) yield sliceFrames(clip, at, at + 10);
    };
    await writeVideo(clip, folder.file('whole.mp4'));
    await writeVideo(pieces(), folder.file('pieces.mp4'));
    const [whole, joined] = [
      await reader.read(folder.file('whole.mp4')),
      await reader.read(folder.file('pieces.mp4')),
    ];
    expect(joined.video).toEqual(whole.video);
  });

  test.each(['mp4', 'webm', 'gif', 'webp'])('the same frames give the same %s', async (format) => {
    // The size and the content at which x264 with macroblock trees gave four different files of four.
    const { scene } = makeWorld(worldKey(0, 2), { seconds: 2 });
    const world = renderWorld(scene, { width: 320, height: 180, rate: 16 });
    await using writer = new MediaWriter();
    const files = new Set<string>();
    for (let i = 0; i < 4; i++) {
      const path = folder.file(`same.${format}`);
      await writer.write(world, path);
      files.add(readFileSync(path).toString('base64'));
    }
    expect(files.size).toBe(1);
  });

  test('NTSC rates are kept exactly', async () => {
    const path = folder.file('ntsc.mp4');
    const rate = 30000 / 1001;
    await writeVideo({ ...videoFrom(clip.data, { width: 128, height: 128, rate }) }, path);
    const { video } = await reader.read(path);
    expect(video.rate).toBe(rate);
    expect(video.timestamps[30]).toBeCloseTo(1001 / 1000, 12);
  });

  test.skipIf(noSharedData)(`real clips keep 40 dB (${noSharedData ?? 'droid-arm'})`, async () => {
    for (const name of ['0001', '0041', '0401']) {
      const { video } = await reader.read(join(sharedData, 'droid-arm/clips', `${name}.mp4`), {
        maxFrames: 30,
      });
      for (const format of ['mp4', 'webm']) {
        const path = folder.file(`${name}.${format}`);
        await writeVideo(video, path);
        expect(psnr(video, (await reader.read(path)).video), `${name} ${format}`).toBeGreaterThanOrEqual(40);
      }
    }
  });

  test('a higher quality is larger and closer', async () => {
    const results = [];
    for (const quality of [20, 60, 95]) {
      const path = folder.file(`quality-${quality}.mp4`);
      const { bytes } = await writeVideo(clip, path, { quality });
      results.push({ bytes, decibels: psnr(clip, (await reader.read(path)).video) });
    }
    const [low, middle, high] = results;
    expect(low!.bytes < middle!.bytes && middle!.bytes < high!.bytes).toBe(true);
    expect(low!.decibels < middle!.decibels && middle!.decibels < high!.decibels).toBe(true);
  });
});

describe('odd sizes', () => {
  const odd = balls(61, 47, 3);

  test('mp4 refuses them unless told what to do', async () => {
    await expect(writeVideo(odd, folder.file('odd.mp4'))).rejects.toThrow(
      /odd.mp4: 61x47 .* even sizes.*crop or pad/,
    );
    expect(namesIn(folder.path)).not.toContain('odd.mp4');
  });

  test.each([
    ['crop', 60, 46],
    ['pad', 62, 48],
  ] as const)('%s', async (oddSize, width, height) => {
    const path = folder.file(`odd-${oddSize}.mp4`);
    await writeVideo(odd, path, { oddSize });
    const { video } = await reader.read(path);
    expect([video.width, video.height]).toEqual([width, height]);
    const same = (x: number, y: number): number =>
      Math.abs(video.data[(y * width + x) * 3]! - odd.data[(Math.min(y, 46) * 61 + Math.min(x, 60)) * 3]!);
    expect(Math.max(same(0, 0), same(30, 20), same(59, 45), same(width - 1, height - 1))).toBeLessThan(16);
  });

  test.each(['webm', 'gif', 'webp'])('%s takes them', async (format) => {
    const path = folder.file(`odd.${format}`);
    await writeVideo(odd, path);
    const { video } = await reader.read(path);
    expect([video.width, video.height]).toEqual([61, 47]);
    expect(psnr(odd, video)).toBeGreaterThan(28);
  });
});

test.skipIf(!hasProgram('ffprobe'))(
  'mp4 is tagged BT.709 limited with its index in front (skips without ffprobe)',
  async () => {
    const { execFileSync } = await import('node:child_process');
    const path = folder.file('tagged.mp4');
    await writeVideo(sliceFrames(clip, 0, 2), path);
    const fields = 'stream=codec_name,pix_fmt,color_range,color_space,color_transfer,color_primaries';
    const probed = execFileSync('ffprobe', [
      '-v',
      'error',
      '-show_entries',
      fields,
      '-of',
      'csv=p=0',
      path,
    ]).toString();
    expect(probed.trim()).toBe('h264,yuv420p,tv,bt709,bt709,bt709');
    const bytes = readFileSync(path).toString('latin1');
    expect(bytes.indexOf('moov')).toBeGreaterThan(0);
    expect(bytes.indexOf('moov')).toBeLessThan(bytes.indexOf('mdat'));
  },
);
