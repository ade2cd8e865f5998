/**
 * Round trip at the default quality: PSNR over all frames of what is written and read back, for procedural worlds of
 * 128x128 and the first 30 frames of real clips.
 *
 *     npx node bench/round-trip.ts [WORLDS=40] [CLIPS=../shared/data/droid-arm/clips] [EVERY=8]
 *
 * Exit code 1 when a world is below 34 dB or a clip below 40.
 */
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { renderWorld } from '../src/data/worlds/render.ts';
import { makeWorld, worldKey } from '../src/data/worlds/world.ts';
import { i420ToRgb, rgbToNearestI420 } from '../src/video/color.ts';
import { frameAt, type Video } from '../src/video/frames.ts';
import { MediaReader } from '../src/video/read.ts';
import { writeVideo } from '../src/video/write.ts';

const [worlds = '40', clips = '../shared/data/droid-arm/clips', every = '8'] = process.argv.slice(2);
const wanted = { world: 34, clip: 40 };
const formats = ['mp4', 'webm'] as const;
const folder = await mkdtemp(join(tmpdir(), 'zoetrope-round-trip-'));
await using reader = new MediaReader();

function psnr(a: Uint8Array, b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - (b[i] as number)) ** 2;
  return 10 * Math.log10((255 * 255 * a.length) / sum);
}

/** What 4:2:0 alone costs, with no codec. */
function ceiling(video: Video): number {
  const shown = new Uint8Array(video.data.length);
  const bytes = video.width * video.height * 3;
  for (let i = 0; i < video.frames; i++) {
    const i420 = rgbToNearestI420(frameAt(video, i), video.width, video.height);
    shown.set(i420ToRgb(i420, video.width, video.height), i * bytes);
  }
  return psnr(video.data, shown);
}

async function* sources(): AsyncGenerator<{ kind: keyof typeof wanted; name: string; video: Video }> {
  for (let i = 0; i < Number(worlds); i++) {
    const { scene } = makeWorld(worldKey(1, i), { seconds: 2 });
    yield { kind: 'world', name: `${i}`, video: renderWorld(scene, { width: 128, height: 128, rate: 16 }) };
  }
  const names = readdirSync(clips).filter((name) => name.endsWith('.mp4'));
  for (const name of names.filter((_, i) => i % Number(every) === 0)) {
    yield { kind: 'clip', name, video: (await reader.read(join(clips, name), { maxFrames: 30 })).video };
  }
}

const figures = new Map<string, { decibels: number; name: string; bytes: number; room: number }[]>();
try {
  for await (const { kind, name, video } of sources()) {
    const room = ceiling(video);
    for (const format of formats) {
      const path = join(folder, `clip.${format}`);
      const { bytes } = await writeVideo(video, path);
      const decibels = psnr(video.data, (await reader.read(path)).video.data);
      const key = `${kind} ${format}`;
      figures.set(key, [...(figures.get(key) ?? []), { decibels, name, bytes, room }]);
      if (decibels < wanted[kind]) {
        console.log(`${key} ${name}: ${decibels.toFixed(2)} dB; 4:2:0 alone ${room.toFixed(2)}`);
        process.exitCode = 1;
      }
    }
  }
} finally {
  await rm(folder, { recursive: true });
}
for (const [key, list] of figures) {
  const sorted = list.toSorted((a, b) => a.decibels - b.decibels);
  const [lowest, median] = [sorted[0], sorted[sorted.length >> 1]];
  if (!(lowest && median)) continue;
  const kilobytes = list.reduce((sum, { bytes }) => sum + bytes, 0) / list.length / 1000;
  const room = Math.min(...list.map((figure) => figure.room));
  console.log(
    `${list.length} ${key}: lowest ${lowest.decibels.toFixed(2)} dB (${lowest.name}), median ${median.decibels.toFixed(2)}, ` +
      `${kilobytes.toFixed(1)} kB each; 4:2:0 alone lowest ${room.toFixed(2)}`,
  );
}
