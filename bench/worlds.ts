/**
 * Speed of procedural worlds on one core: frames painted a second at 64x64 and larger, scenes drawn, captions written.
 *
 *   node bench/worlds.ts [--scenes N] [--width W] [--height H]
 *
 * Times are processor time of this process, so other work on the machine does not blur them.
 * Scenes are random ones of the training split, 2 seconds at 16 frames a second; making the renderer of a scene is counted
 * in, so the figure is what a training loader gets. Without sizes it runs 64x64, 128x128 and 192x112.
 */
import { parseArgs } from 'node:util';
import { captionsOf } from '../src/data/worlds/caption.ts';
import { groundTruth } from '../src/data/worlds/ground-truth.ts';
import { frameCount, WorldRenderer } from '../src/data/worlds/render.ts';
import { sampleScene } from '../src/data/worlds/sample.ts';
import type { Scene } from '../src/data/worlds/scene.ts';
import { worldKey } from '../src/data/worlds/world.ts';

const { values } = parseArgs({
  options: {
    scenes: { type: 'string', default: '100' },
    width: { type: 'string' },
    height: { type: 'string' },
  },
});
const count = Number(values.scenes);
const rate = 16;

const scenes = timed('scenes drawn', 'scenes', () =>
  Array.from({ length: count }, (_, i) => sampleScene(worldKey(1, i), { split: 'train' })),
);
timed('captions in three levels', 'scenes', () =>
  scenes.map((scene, i) => captionsOf(scene, worldKey(2, i))),
);
timed('ground truth', 'scenes', () =>
  scenes.map((scene) => groundTruth(scene, { width: 64, height: 64, rate })),
);

const sizes =
  values.width === undefined
    ? [
        [64, 64],
        [128, 128],
        [192, 112],
      ]
    : [[Number(values.width), Number(values.height ?? values.width)]];
for (const [width = 64, height = 64] of sizes) {
  paint(scenes.slice(0, 10), width, height);
  const seconds: number[] = [];
  let frames = 0;
  for (const scene of scenes) {
    const start = cpuMilliseconds();
    frames += paint([scene], width, height);
    seconds.push((cpuMilliseconds() - start) / 1000 / frameCount(scene, rate));
  }
  const total = seconds.reduce((sum, value) => sum + value, 0) / seconds.length;
  const slowest = Math.max(...seconds);
  console.log(
    `${width}x${height}: ${(1 / total).toFixed(0)} frames/s over ${frames} frames; slowest scene ${(1 / slowest).toFixed(0)} frames/s`,
  );
}

function cpuMilliseconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function paint(list: readonly Scene[], width: number, height: number): number {
  const out = new Uint8Array(3 * width * height);
  let frames = 0;
  for (const scene of list) {
    const renderer = new WorldRenderer(scene, width, height);
    for (let i = 0; i < frameCount(scene, rate); i++) renderer.frame(i / rate, out);
    frames += frameCount(scene, rate);
  }
  return frames;
}

function timed<T extends readonly unknown[]>(what: string, unit: string, run: () => T): T {
  const start = cpuMilliseconds();
  const result = run();
  const each = (cpuMilliseconds() - start) / result.length;
  console.log(`${what}: ${(1000 / each).toFixed(0)} ${unit}/s (${each.toFixed(2)} ms each)`);
  return result;
}
