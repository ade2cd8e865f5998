/**
 * Streams windows as training does and watches the memory of this process:
 *
 *     node bench/clip-source.ts ../shared/data/droid-arm [samples, default 1000] [processes, default 2]
 */
import { availableParallelism } from 'node:os';
import { ClipSource } from '../src/data/clip-source.ts';
import { checkDataset, windowsOf } from '../src/data/preflight/check.ts';
import { defaultWindow } from '../src/data/window.ts';
import { MediaReader } from '../src/video/read.ts';

const [path = '../shared/data/droid-arm', count = '1000', width = String(availableParallelism())] =
  process.argv.slice(2);
const processes = Number(width);
await using reader = new MediaReader({ processes });
const { report } = await checkDataset(path, { window: defaultWindow, reader, processes });
const windows = windowsOf(report);
const prefetchBytes = 64 * 2 ** 20;
const source = new ClipSource({
  root: report.root,
  windows,
  seed: 1,
  reader,
  prefetchBytes,
  onBadFile: (file, reason) => console.log(`given up: ${file}: ${reason}`),
});
console.log(
  `${windows.length} windows, prefetch bound ${prefetchBytes / 2 ** 20} MB, ${processes} processes`,
);

const started = performance.now();
let frames = 0;
let pixels = 0;
for (let i = 1; i <= Number(count); i++) {
  const { video } = await source.next();
  frames += video.frames;
  pixels += video.data.length / 3;
  if (i % 100 !== 0) continue;
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  const mb = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MB`;
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `${i} samples: ${(frames / seconds).toFixed(0)} frames/s, ${(pixels / seconds / 1e6).toFixed(1)} Mpixel/s, ` +
      `rss ${mb(rss)}, heap ${mb(heapUsed)}, buffers ${mb(arrayBuffers)}`,
  );
}
