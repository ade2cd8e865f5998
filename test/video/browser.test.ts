import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Video, videoFrom } from '../../src/video/frames.ts';
import { writeVideo } from '../../src/video/write.ts';
import { balls, temporaryFolder } from './fixtures.ts';

const executablePath = '/usr/bin/chromium';
const noChromium = existsSync(executablePath) ? undefined : `skipped: no ${executablePath}`;
const folder = temporaryFolder();

// Primaries and their mixtures, greys, and colours of skin, sky and leaves.
const chart = [
  [255, 0, 0],
  [0, 255, 0],
  [0, 0, 255],
  [255, 255, 0],
  [0, 255, 255],
  [255, 0, 255],
  [0, 0, 0],
  [64, 64, 64],
  [128, 128, 128],
  [192, 192, 192],
  [255, 255, 255],
  [224, 172, 140],
  [92, 150, 220],
  [60, 120, 40],
  [200, 100, 20],
  [90, 40, 120],
];
const patch = 32;
const side = 4 * patch;

/** The chart in patches of 32 pixels, standing still. */
function chartVideo(frames: number): Video {
  const data = Uint8Array.from({ length: side * side * 3 * frames }, (_, i) => {
    const pixel = Math.floor(i / 3) % (side * side);
    return chart[Math.floor(pixel / side / patch) * 4 + Math.floor((pixel % side) / patch)]![i % 3]!;
  });
  return videoFrom(data, { width: side, height: side, rate: 24 });
}

/** In the page: plays a video to its end and collects the media time of every frame presented or skipped. */
interface Played {
  readonly ended: boolean;
  readonly frames: number;
  readonly duration: number;
  readonly size: readonly [number, number];
  readonly colours: readonly number[][];
}

describe.skipIf(noChromium)(`in Chromium (${noChromium ?? 'headless'})`, () => {
  let browser: Browser;
  let server: Server;
  let page: Page;

  beforeAll(async () => {
    server = createServer((request, response) => {
      const name = basename(request.url ?? '');
      if (!name || !existsSync(folder.file(name)))
        return void response.setHeader('content-type', 'text/html').end('<!doctype html><body></body>');
      const type = name.endsWith('.webm') ? 'video/webm' : 'video/mp4';
      return void response.setHeader('content-type', type).end(readFileSync(folder.file(name)));
    }).listen(0);
    // Without a GPU Chromium converts colour on the CPU with coefficients so coarse that saturated blue is off by 12, in
    // every BT.709 file. The software GPU runs the shaders that people's browsers run.
    const gpu = ['--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'];
    const args = [
      ...gpu,
      '--headless',
      '--no-sandbox',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
    ];
    browser = await chromium.launch({ executablePath, headless: true, args });
    page = await browser.newPage();
    await page.goto(`http://localhost:${(server.address() as AddressInfo).port}/`);
  });

  afterAll(async () => {
    await browser?.close();
    server?.close();
    folder[Symbol.dispose]();
  });

  const play = (name: string): Promise<Played> =>
    page.evaluate(
      async ([source, patchSize]) => {
        const video = document.createElement('video');
        video.muted = true;
        video.src = `/${source}`;
        document.body.append(video);
        const ended = new Promise<boolean>((resolve, reject) => {
          video.onended = () => resolve(true);
          video.onerror = () => reject(new Error(video.error?.message ?? 'cannot be played'));
        });
        await video.play();
        const done = await ended;
        const { totalVideoFrames } = video.getVideoPlaybackQuality();
        const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
        const context = canvas.getContext('2d')!;
        context.drawImage(video, 0, 0);
        const colours: number[][] = [];
        for (let y = patchSize / 2; y < canvas.height; y += patchSize) {
          for (let x = patchSize / 2; x < canvas.width; x += patchSize) {
            colours.push([...context.getImageData(x, y, 1, 1).data.slice(0, 3)]);
          }
        }
        video.remove();
        return {
          ended: done,
          frames: totalVideoFrames,
          duration: video.duration,
          size: [video.videoWidth, video.videoHeight] as const,
          colours,
        };
      },
      [name, patch] as const,
    );

  test.each(['mp4', 'webm'])('%s plays to the end, every frame of it', async (format) => {
    const clips = {
      small: balls(64, 64, 30),
      wide: balls(320, 180, 48),
      one: balls(64, 48, 1),
      slow: balls(48, 64, 6, 5),
    };
    for (const [name, clip] of Object.entries(clips)) {
      await writeVideo(clip, folder.file(`${name}.${format}`));
      const played = await play(`${name}.${format}`);
      expect(played, name).toMatchObject({
        ended: true,
        frames: clip.frames,
        size: [clip.width, clip.height],
      });
      expect(Math.abs(played.duration - clip.frames / clip.rate), name).toBeLessThan(0.002);
    }
  });

  test.each([
    ['mp4', [62, 48]],
    ['webm', [61, 47]],
  ])('%s of odd size and variable rate plays to the end, every frame of it', async (format, size) => {
    const timestamps = Float64Array.from([0, 0.04, 0.2, 0.22, 0.6, 0.65, 1.1]);
    const uneven: Video = { ...balls(61, 47, 7), timestamps, rate: 5 };
    await writeVideo(uneven, folder.file(`uneven.${format}`), { oddSize: 'pad' });
    const played = await play(`uneven.${format}`);
    expect(played).toMatchObject({ ended: true, frames: 7, size });
    // The last frame stays for one of the average rate.
    expect(Math.abs(played.duration - 1.3)).toBeLessThan(0.002);
  });

  test.each(['mp4', 'webm'])('%s shows a colour chart within 2 levels', async (format) => {
    await writeVideo(chartVideo(12), folder.file(`chart.${format}`));
    const { colours } = await play(`chart.${format}`);
    expect(colours).toHaveLength(chart.length);
    const errors = colours.map((shown, i) => Math.max(...shown.map((v, c) => Math.abs(v - chart[i]![c]!))));
    expect(
      errors.filter((error) => error > 2),
      JSON.stringify(colours),
    ).toEqual([]);
  });
});
