import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { main } from '../../src/cli/main.ts';
import { videoFrom } from '../../src/video/frames.ts';
import { MediaWriter } from '../../src/video/write.ts';

const place = mkdtempSync(join(tmpdir(), 'zoetrope-full-'));
const disk = mountDisk(join(place, 'disk'));

/** A real file system of 1 MB, or undefined where that is not allowed. */
function mountDisk(path: string): string | undefined {
  mkdirSync(path);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', path], { stdio: 'ignore' });
    return path;
  } catch {
    return undefined;
  }
}

/** Leaves `bytes` of room on the disk, and a file that takes the rest. */
function leave(bytes: number): void {
  const { bavail, bsize } = statfsSync(disk!);
  writeFileSync(join(disk!, 'rest'), new Uint8Array(bavail * bsize - bytes));
}

async function run(...argv: string[]): Promise<{ code: number; stderr: string }> {
  let stderr = '';
  const silent = () => new Writable({ write: (_bytes, _encoding, done) => done() });
  const errors = new Writable({
    write: (bytes: Buffer, _encoding, done) => {
      stderr += bytes.toString();
      done();
    },
  });
  const quiet = { isTTY: false, columns: 80 };
  const terminal = {
    stdout: Object.assign(silent(), quiet),
    stderr: Object.assign(errors, quiet),
    signal: new AbortController().signal,
  };
  const code = await main(argv, terminal);
  return { code, stderr: stderr.trim().split('\n').at(-1) ?? '' };
}

/** Names under the disk, all that is not the filler. */
const names = (): string[] =>
  readdirSync(disk!, { recursive: true })
    .map(String)
    .filter((name) => name !== 'rest')
    .sort();

describe.skipIf(!disk)('on a full disk (skips where no tmpfs can be mounted)', () => {
  beforeEach(() => {
    for (const name of readdirSync(disk!)) rmSync(join(disk!, name), { recursive: true });
  });

  test('worlds end in one line at the clip that does not fit; clips before it stay whole', async () => {
    leave(150_000);
    const out = join(disk!, 'worlds');
    const { code, stderr } = await run(
      'dataset',
      'worlds',
      '--count',
      '40',
      '--size',
      '128x128',
      '--out',
      out,
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/worlds\/clips\/\d{6}\.mp4: cannot be written: the disk is full; make room/);
    expect(names().filter((name) => /tmp|manifest|truth/.test(name))).toEqual([]);
    expect(names().some((name) => name.endsWith('.mp4'))).toBe(true);
  });

  test('worlds whose truth does not fit end in one line, and the manifest is not there by halves', async () => {
    const out = join(disk!, 'worlds');
    const sizes = ['--count', '3', '--size', '16x16'];
    expect((await run('dataset', 'worlds', ...sizes, '--out', out)).code).toBe(0);
    for (const name of ['truth.jsonl', 'manifest.jsonl']) rmSync(join(out, name));
    leave(4096);
    const { code, stderr } = await run('dataset', 'worlds', ...sizes, '--out', out);
    expect(code).toBe(1);
    expect(stderr).toMatch(/worlds\/truth\.jsonl: cannot be written: the disk is full; make room/);
    expect(names().filter((name) => /tmp|jsonl/.test(name))).toEqual([]);
  });

  test('the page of a check leaves nothing behind', async () => {
    const clips = join(place, 'clips');
    mkdirSync(clips);
    await using writer = new MediaWriter();
    for (let i = 0; i < 3; i++) {
      const data = Uint8Array.from({ length: 32 * 32 * 3 * 20 }, (_, at) => (at * (i + 3)) & 255);
      await writer.write(videoFrom(data, { width: 32, height: 32, rate: 20 }), join(clips, `${i}.mp4`));
    }
    leave(4096);
    const page = join(disk!, 'report.html');
    const { code, stderr } = await run('dataset', 'check', clips, '--html', page);
    expect(code).toBe(1);
    expect(stderr).toMatch(/report\.html: cannot be written: the disk is full; make room/);
    expect(names()).toEqual([]);
  });
});

afterAll(() => {
  // Lazily: a killed child may hold it for a moment longer.
  if (disk) execFileSync('umount', ['-l', disk]);
  rmSync(place, { recursive: true });
});
