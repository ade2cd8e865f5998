import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseManifestLine } from '../../../src/data/manifest.ts';
import { parseScene } from '../../../src/data/worlds/parse-scene.ts';
import { renderWorld } from '../../../src/data/worlds/render.ts';
import { splitOf } from '../../../src/data/worlds/split.ts';
import { makeWorld, worldKey } from '../../../src/data/worlds/world.ts';
import { type WorldsPlan, writeWorlds } from '../../../src/data/worlds/write-worlds.ts';
import { readVideo } from '../../../src/video/read.ts';

const plan: WorldsPlan = { count: 3, width: 64, height: 48, seconds: 1, rate: 8, seed: 5, split: 'held-out' };
let parent = '';
beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'worlds-'));
});
afterAll(() => rm(parent, { recursive: true, force: true }));

const linesOf = async (path: string) => (await readFile(path, 'utf8')).trimEnd().split('\n');

describe('writing worlds', () => {
  it('stops when asked, takes up again, and writes clips, captions and truth', async () => {
    const folder = join(parent, 'set');
    const stop = new AbortController();
    const first = await writeWorlds(folder, plan, {
      concurrency: 1,
      signal: stop.signal,
      onProgress: (done) => done === 2 && stop.abort(),
    });
    expect(first).toEqual({ written: 2, kept: 0, complete: false });
    expect(await linesOf(join(folder, 'manifest.jsonl'))).toHaveLength(2);
    expect(await writeWorlds(folder, plan)).toEqual({ written: 1, kept: 2, complete: true });

    expect((await readdir(folder)).sort()).toEqual(['clips', 'manifest.jsonl', 'truth.jsonl', 'worlds.json']);
    expect((await readdir(join(folder, 'clips'))).sort()).toEqual(['000000.mp4', '000001.mp4', '000002.mp4']);
    const clips = (await linesOf(join(folder, 'manifest.jsonl'))).map((line) =>
      parseManifestLine(line, 'here'),
    );
    const truths = await linesOf(join(folder, 'truth.jsonl'));
    for (const [i, clip] of clips.entries()) {
      const world = makeWorld(worldKey(5, i), { seconds: 1, split: 'held-out' });
      expect(splitOf(world.scene)).toBe('held-out');
      expect(clip).toMatchObject({ file: `clips/00000${i}.mp4`, captions: world.captions });
      const truth = JSON.parse(truths[i]!) as { file: string; scene: unknown; frames: unknown[] };
      expect(truth.file).toBe(clip.file);
      expect(truth.frames).toHaveLength(8);
      expect(parseScene(JSON.stringify(truth.scene))).toEqual(world.scene);
    }
    // The file shows what the renderer paints, less a little loss.
    const [clip] = clips;
    const video = await readVideo(join(folder, clip!.file));
    const painted = renderWorld(makeWorld(worldKey(5, 0), { seconds: 1, split: 'held-out' }).scene, plan);
    expect([video.frames, video.width, video.height]).toEqual([8, 64, 48]);
    const squares = painted.data.reduce((sum, value, i) => sum + (value - video.data[i]!) ** 2, 0);
    expect(10 * Math.log10(255 ** 2 / (squares / painted.data.length))).toBeGreaterThan(30);
  });

  it('refuses a folder that holds something else', async () => {
    const folder = join(parent, 'other');
    await writeWorlds(folder, { ...plan, count: 1 }, { signal: AbortSignal.abort() });
    await expect(writeWorlds(folder, { ...plan, seed: 6 })).rejects.toThrow(
      /another plan.*choose another folder/,
    );
    await writeFile(join(parent, 'notes.txt'), 'mine');
    await expect(writeWorlds(parent, plan)).rejects.toThrow(/not empty/);
    await expect(writeWorlds(join(parent, 'notes.txt'), plan)).rejects.toThrow(/cannot be made/);
  });
});
