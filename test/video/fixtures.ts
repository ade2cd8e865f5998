import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Video, videoFrom } from '../../src/video/frames.ts';

/** Real clips and odd files; not part of the repository. */
export const sharedData = '/work/shared/data';

/** Why tests on {@link sharedData} are skipped; undefined where it is there. */
export const noSharedData = existsSync(sharedData) ? undefined : `skipped: no ${sharedData} on this machine`;

/** A folder that disposes of itself. */
export function temporaryFolder(): {
  path: string;
  file: (name: string) => string;
  [Symbol.dispose](): void;
} {
  const path = mkdtempSync(join(tmpdir(), 'zoetrope-video-'));
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

/**
 * Soft-edged balls circling before a gradient: what small synthetic clips look like. Edges are two pixels wide, as an
 * anti-aliasing rasteriser leaves them.
 */
export function balls(width: number, height: number, frames: number, rate = 24): Video {
  const colours = [
    [230, 60, 50],
    [240, 200, 40],
    [50, 90, 220],
  ] as const;
  const radius = Math.min(width, height) * 0.14;
  const data = new Uint8Array(width * height * 3 * frames);
  for (let t = 0, at = 0; t < frames; t++) {
    const centres = colours.map((_, k) => {
      const angle = t / (6 + k) + k * 2.1;
      return [width * (0.5 + 0.28 * Math.cos(angle)), height * (0.5 + 0.28 * Math.sin(angle))] as const;
    });
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at += 3) {
        let r = 70 + (60 * y) / height;
        let g = 130 + (60 * y) / height;
        let b = 210 - (70 * y) / height;
        for (let k = 0; k < 3; k++) {
          const [cx, cy] = centres[k]!;
          const cover = Math.min(
            1,
            Math.max(0, (radius - Math.sqrt((x - cx) ** 2 + (y - cy) ** 2)) / 2 + 0.5),
          );
          r += cover * (colours[k]![0] - r);
          g += cover * (colours[k]![1] - g);
          b += cover * (colours[k]![2] - b);
        }
        data[at] = Math.round(r);
        data[at + 1] = Math.round(g);
        data[at + 2] = Math.round(b);
      }
    }
  }
  return videoFrom(data, { width, height, rate });
}

/** Peak signal-to-noise ratio in dB over all frames and channels. */
export function psnr(a: Video, b: Video): number {
  if (a.data.length !== b.data.length) return 0;
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) sum += (a.data[i]! - b.data[i]!) ** 2;
  return 10 * Math.log10((255 * 255 * a.data.length) / sum);
}

/** Largest difference between two moments of equal index, in seconds, taking both from their first. */
export function largestTimeError(a: Video, b: Video): number {
  let worst = 0;
  for (let i = 0; i < a.frames; i++) {
    const from = (video: Video): number => video.timestamps[i]! - video.timestamps[0]!;
    worst = Math.max(worst, Math.abs(from(a) - from(b)));
  }
  return worst;
}

/** Names in a folder, hidden ones included. */
export function namesIn(folder: string): string[] {
  return readdirSync(folder).sort();
}

/** Whether a program is installed. */
export function hasProgram(name: string): boolean {
  try {
    execFileSync(name, ['-version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
