import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { sliceFrames, type Video, videoFrom } from '../../src/video/frames.ts';
import { MediaReader } from '../../src/video/read.ts';
import { MediaWriter, writeVideo } from '../../src/video/write.ts';
import { seeded } from '../fuzz/mutate.ts';
import { balls, namesIn, temporaryFolder } from './fixtures.ts';

const folder = temporaryFolder();
const reader = new MediaReader({ processes: 1 });
const clip = balls(64, 48, 12);
const root = process.getuid?.() === 0;

beforeAll(async () => {
  await writeVideo(clip, folder.file('good.mp4'));
});

afterAll(async () => {
  await reader[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

/** The message of the one-line error that names the file; fails the test otherwise. */
async function refusal(work: Promise<unknown>, path: string): Promise<string> {
  const error = await work.then(
    () => new Error('it was not refused'),
    (reason: unknown) => reason as Error,
  );
  expect(error).toBeInstanceOf(UserError);
  expect(error.message.split('\n')).toHaveLength(1);
  expect(error.message.startsWith(`${path}: `), error.message).toBe(true);
  return error.message;
}

const read = (path: string): Promise<unknown> => reader.read(path);

describe('reading', () => {
  test.each<[string, string | Uint8Array, RegExp]>([
    ['empty.mp4', '', /empty/],
    ['text.mp4', 'this is not a video\n'.repeat(100), /not a media file/],
    [
      'noise.mp4',
      Uint8Array.from({ length: 50_000 }, (_, i) => (i * i * 31 + (i >> 3)) & 255),
      /not a media file|no video/,
    ],
    [
      'playlist.mp4',
      '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n',
      /refers to other files/,
    ],
    ['concat.mp4', 'ffconcat version 1.0\nfile good.mp4\n', /refers to other files/],
    ['concat-bare.mp4', "file 'good.mp4'\n", /not a media file/],
    ['dash.mp4', '<?xml version="1.0"?><MPD><BaseURL>good.mp4</BaseURL></MPD>', /refers to other files/],
    [
      'drawing.png',
      '<svg xmlns="http://www.w3.org/2000/svg"><image href="good.png"/></svg>',
      /refers to other files/,
    ],
    ['head.png', '\x89PNG\r\n\x1a\n', /damaged picture/],
    ['head.gif', 'GIF89a', /not a media file|no frame|no video/],
  ])('%s', async (name, content, reason) => {
    const path = folder.file(name);
    writeFileSync(path, content, typeof content === 'string' ? 'latin1' : null);
    expect(await refusal(read(path), path)).toMatch(reason);
  });

  test('what is no file', async () => {
    const missing = folder.file('missing.mp4');
    expect(await refusal(read(missing), missing)).toMatch(/no such file/);
    const below = join(folder.file('good.mp4'), 'x.mp4');
    expect(await refusal(read(below), below)).toMatch(/no such file/);
    const directory = folder.file('directory');
    mkdirSync(directory);
    expect(await refusal(read(directory), directory)).toMatch(/folder without/);
    expect(await refusal(read('/dev/zero'), '/dev/zero')).toMatch(/not a regular file/);
  });

  test('a FIFO is refused without waiting for a writer', async () => {
    const path = folder.file('fifo.mp4');
    execFileSync('mkfifo', [path]);
    expect(await refusal(read(path), path)).toMatch(/not a regular file/);
  });

  test('symbolic links are followed to regular files only', async () => {
    const [good, broken, loop, device] = ['good', 'broken', 'loop', 'device'].map((n) =>
      folder.file(`link-${n}.mp4`),
    );
    symlinkSync(folder.file('good.mp4'), good!);
    symlinkSync(folder.file('nowhere'), broken!);
    symlinkSync(loop!, loop!);
    symlinkSync('/dev/zero', device!);
    expect((await reader.read(good!)).video.frames).toBe(12);
    expect(await refusal(read(broken!), broken!)).toMatch(/link to nothing/);
    expect(await refusal(read(loop!), loop!)).toMatch(/leads to itself/);
    expect(await refusal(read(device!), device!)).toMatch(/not a regular file/);
  });

  test('a picture of 30,000 x 30,000 is refused by its header', async () => {
    const path = folder.file('huge.png');
    writeFileSync(path, pngOf(30_000, 30_000));
    expect(await refusal(read(path), path)).toMatch(/30000x30000 pixels, more than/);
    expect(await refusal(reader.probe(path), path)).toMatch(/more than/);
  });

  test('a file that grows while it is read is not taken for complete', async () => {
    const path = folder.file('growing.mp4');
    writeFileSync(path, readFileSync(folder.file('good.mp4')));
    await using stream = await reader.stream(path);
    appendFileSync(path, 'more');
    const all = (async () => {
      for await (const piece of stream) expect(piece.frames).toBeGreaterThan(0);
    })();
    expect(await refusal(all, path)).toMatch(/changed while it was read/);
  });

  test('a truncated file is an error by default, and states its shortfall when asked to', async () => {
    const path = folder.file('truncated.mp4');
    const bytes = readFileSync(folder.file('good.mp4'));
    writeFileSync(path, bytes.subarray(0, bytes.length - 2000));
    expect(await refusal(read(path), path)).toMatch(/only \d+ of 12 frames are sound/);
    const { video, report } = await reader.read(path, { onShortfall: 'report' });
    expect(video.frames).toBeGreaterThan(0);
    expect(video.frames).toBeLessThan(12);
    expect(report.shortfall).toMatchObject({ got: video.frames, expected: 12 });
  });

  test.each([
    [{ start: -1 }, /start at 0/],
    [{ start: 2, end: 1 }, /after the start/],
    [{ rate: 0 }, /0.001 to 1000/],
    [{ maxFrames: 0 }, /at least 1/],
    [{ size: { width: 0, height: 4 } }, /whole numbers/],
    [{ size: { width: 100_000, height: 100_000 } }, /at most/],
    [{ start: 10 }, /it ends at 0.500 s/],
  ])('%o is refused', async (options, reason) => {
    const path = folder.file('good.mp4');
    expect(await refusal(reader.read(path, options), path)).toMatch(reason);
  });
});

describe('supervision', () => {
  test('a process that takes too long is killed, and the next request gets another', async () => {
    await using impatient = new MediaReader({ limits: { seconds: 0.001 } });
    const path = folder.file('good.mp4');
    expect(await refusal(impatient.read(path), path)).toMatch(/takes more than 0.001 s/);
    expect(await refusal(impatient.read(path), path)).toMatch(/takes more than 0.001 s/);
  });

  test('a process that grows too large is killed', async () => {
    await using small = new MediaReader({ limits: { memory: 2 ** 20 } });
    const path = folder.file('good.mp4');
    // Where there is no /proc to look at while it works, its first answer says how large it is.
    expect(await refusal(small.read(path), path)).toMatch(/more than 1 MB of memory/);
  });

  const listing = `/proc/self/task/${process.pid}/children`;
  test.skipIf(!existsSync(listing))(
    'a process that grows too large is killed while it works, long before it answers (skips without /proc)',
    async () => {
      await using small = new MediaReader({ limits: { memory: 2 ** 20, seconds: 20 } });
      const path = folder.file('good.mp4');
      const before = new Set(readFileSync(listing, 'utf8').split(' '));
      const refused = refusal(small.read(path), path);
      /** The new process, once it takes so many pages of memory. */
      const grown = async (pages: number): Promise<number> => {
        for (;;) {
          const [pid] = readFileSync(listing, 'utf8')
            .split(' ')
            .filter((one) => one && !before.has(one));
          if (pid !== undefined && Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) > pages)
            return Number(pid);
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      };
      // A call that does not end: what is stopped answers nothing, but its memory can be looked at.
      process.kill(await grown(1024), 'SIGSTOP');
      expect(await refused).toMatch(/more than 1 MB of memory/);
    },
  );

  test.skipIf(!existsSync(listing))(
    'a process that crashes fails its request only (skips without /proc)',
    async () => {
      await using pool = new MediaReader({ processes: 2 });
      const path = folder.file('good.mp4');
      const before = new Set(readFileSync(listing, 'utf8').split(' '));
      const doomed = await pool.stream(path);
      const [child] = readFileSync(listing, 'utf8')
        .split(' ')
        .filter((pid) => pid.trim() && !before.has(pid));
      const other = await pool.stream(path);
      process.kill(Number(child), 'SIGSEGV');
      const all = (async () => {
        for await (const piece of doomed) expect(piece.frames).toBeGreaterThan(0);
      })();
      expect(await refusal(all, path)).toMatch(/process ended \(SIGSEGV\)/);
      for await (const piece of other) expect(piece.frames).toBe(12);
      expect(
        (await Promise.all([pool.read(path), pool.read(path)])).map(({ video }) => video.frames),
      ).toEqual([12, 12]);
    },
  );

  test('frames beyond the limit of one read are refused, but stream', async () => {
    await using narrow = new MediaReader({ limits: { bytes: 64 * 48 * 3 * 5 } });
    const path = folder.file('good.mp4');
    expect(await refusal(narrow.read(path), path)).toMatch(/take more than/);
    expect((await narrow.read(path, { maxFrames: 5 })).video.frames).toBe(5);
  });

  test('more requests than processes wait their turn; bad ones do not disturb good ones', async () => {
    await using pool = new MediaReader({ processes: 2 });
    const paths = Array.from({ length: 12 }, (_, i) => folder.file(i % 3 === 1 ? 'text.mp4' : 'good.mp4'));
    const results = await Promise.allSettled(paths.map((path) => pool.read(path)));
    for (const [i, result] of results.entries())
      expect(result.status).toBe(i % 3 === 1 ? 'rejected' : 'fulfilled');
  });

  test('leaving a stream early frees its process for the next', async () => {
    const big = balls(640, 480, 20);
    const path = folder.file('big.mp4');
    await writeVideo(big, path);
    for (let round = 0; round < 3; round++) {
      for await (const piece of await reader.stream(path)) {
        expect(piece.frames).toBeLessThan(20);
        break;
      }
    }
    expect((await reader.probe(path)).frames).toBe(20);
  });

  test('a closed reader refuses', async () => {
    const closed = new MediaReader();
    await closed[Symbol.asyncDispose]();
    await expect(closed.read(folder.file('good.mp4'))).rejects.toThrow(/already closed/);
  });
});

describe('writing', () => {
  test('targets in the way are refused and left alone', async () => {
    const place = temporaryFolder();
    const link = place.file('link.mp4');
    symlinkSync(place.file('elsewhere.mp4'), link);
    expect(await refusal(writeVideo(clip, link), link)).toMatch(/symbolic link stands there/);
    const directory = place.file('directory.mp4');
    mkdirSync(directory);
    expect(await refusal(writeVideo(clip, directory), directory)).toMatch(/a folder stands there/);
    const precious = place.file('precious');
    mkdirSync(precious);
    writeFileSync(join(precious, 'thesis.txt'), 'x');
    expect(await refusal(writeVideo(clip, precious), precious)).toMatch(/folder without frames.json/);
    const fifo = place.file('fifo.gif');
    execFileSync('mkfifo', [fifo]);
    expect(await refusal(writeVideo(clip, fifo), fifo)).toMatch(/device or pipe stands there/);
    expect(namesIn(place.path)).toEqual(['directory.mp4', 'fifo.gif', 'link.mp4', 'precious']);
    place[Symbol.dispose]();
  });

  test.each<[string, string, () => Video | Video[], RegExp]>([
    ['an unknown ending', 'a.mov', () => clip, /no format has this ending.*\.mp4/],
    ['no folder', 'none/a.mp4', () => clip, /no folder/],
    ['no frames', 'a.mp4', () => [], /no frames/],
    ['no frames in a piece', 'a.png', () => sliceFrames(clip, 0, 0), /no frames/],
    ['many frames in one picture', 'a.png', () => clip, /more than one frame/],
    ['two sizes', 'a.webm', () => [clip, balls(32, 32, 2)], /32x32 after 64x48/],
    ['times that go back', 'a.mp4', () => [clip, clip], /not after/],
    [
      'a GIF too fast',
      'a.gif',
      () => videoFrom(clip.data, { width: 64, height: 48, rate: 60 }),
      /at most 50/,
    ],
  ])('%s', async (_, name, source, reason) => {
    using place = temporaryFolder();
    const path = place.file(name);
    expect(await refusal(writeVideo(source(), path), path)).toMatch(reason);
    expect(namesIn(place.path)).toEqual([]);
  });

  test('a failure in mid-writing leaves the old file as it was', async () => {
    using place = temporaryFolder();
    const path = place.file('a.mp4');
    await writeVideo(clip, path);
    const before = readFileSync(path);
    const failing = function* (): Generator<Video> {
      yield clip;
      throw new Error('the model stopped');
    };
    await expect(writeVideo(failing(), path)).rejects.toThrow(/the model stopped/);
    expect(readFileSync(path)).toEqual(before);
    expect(namesIn(place.path)).toEqual(['a.mp4']);
    await writeVideo(sliceFrames(clip, 0, 3), path);
    expect((await reader.read(path)).video.frames).toBe(3);
  });

  test('a writer goes on after files that fail, in the same processes', async () => {
    using place = temporaryFolder();
    await using writer = new MediaWriter({ processes: 2 });
    const kinds = ['good.mp4', 'bad.mp4', 'good.webm', 'bad.png', 'good.gif', 'bad.webm'];
    const results = await Promise.allSettled(
      Array.from({ length: 12 }, (_, i) => {
        const kind = kinds[i % kinds.length]!;
        const source = kind.startsWith('good') ? clip : kind.endsWith('png') ? clip : [clip, clip];
        return writer.write(source, place.file(`${i}-${kind}`));
      }),
    );
    const names = results.flatMap((_, i) => (i % 2 === 0 ? [`${i}-${kinds[i % kinds.length]}`] : []));
    expect(namesIn(place.path)).toEqual(names.sort());
    for (const [i, result] of results.entries())
      expect(result.status).toBe(i % 2 === 0 ? 'fulfilled' : 'rejected');
    for (const name of names) expect((await reader.read(place.file(name))).video.frames).toBe(12);
  });

  test('a folder of frames is replaced as a whole', async () => {
    using place = temporaryFolder();
    await writeVideo(clip, place.file('frames'));
    await writeVideo(sliceFrames(clip, 0, 2), place.file('frames'));
    expect(namesIn(place.file('frames'))).toEqual(['000000.png', '000001.png', 'frames.json']);
    expect(namesIn(place.path)).toEqual(['frames']);
  });

  const fullDisk = mountSmallDisk();
  test.skipIf(!fullDisk)(
    'a full disk is told, and nothing partial stays (skips where no tmpfs can be mounted)',
    async () => {
      const noise = Uint8Array.from({ length: 320 * 240 * 3 * 8 }, seeded(5));
      const video = videoFrom(noise, { width: 320, height: 240, rate: 8 });
      const still = videoFrom(noise, { width: 320, height: 240 * 8, rate: 1 });
      for (const name of ['a.mp4', 'a.webm', 'a.gif', 'a.webp', 'a.png', 'frames']) {
        const path = join(fullDisk!, name);
        const shown = name === 'a.png' ? still : video;
        expect(await refusal(writeVideo(shown, path, { quality: 100 }), path)).toMatch(/disk is full/);
        expect(namesIn(fullDisk!)).toEqual([]);
      }
    },
  );
  afterAll(() => {
    // Lazily: a killed child may hold it for a moment longer.
    if (fullDisk) execFileSync('umount', ['-l', fullDisk]);
    if (fullDisk) rmSync(fullDisk, { recursive: true });
  });

  test.skipIf(root)('a folder without permission (skips for root, who may write anywhere)', async () => {
    using place = temporaryFolder();
    chmodSync(place.path, 0o500);
    const path = place.file('a.mp4');
    expect(await refusal(writeVideo(clip, path), path)).toMatch(/no permission/);
    chmodSync(place.path, 0o700);
  });
});

/** A disk of 256 kB, or undefined where that is not allowed. */
function mountSmallDisk(): string | undefined {
  const path = join(tmpdir(), `zoetrope-full-${process.pid}`);
  try {
    mkdirSync(path);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', path], { stdio: 'ignore' });
    return path;
  } catch {
    return undefined;
  }
}

/** A PNG with a correct header of any size and almost no pixels. */
function pngOf(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  const pixels = chunk('IDAT', deflateSync(Buffer.alloc(1000)));
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    pixels,
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

test('descriptors of children and slots are given back', async () => {
  const first = openSync(folder.file('good.mp4'), 'r');
  closeSync(first);
  for (let i = 0; i < 3; i++) {
    await using once = new MediaReader();
    await once.probe(folder.file('good.mp4'));
  }
  const last = openSync(folder.file('good.mp4'), 'r');
  closeSync(last);
  // The lowest free number; it would have climbed by two for every child whose slots stayed open.
  expect(last - first).toBeLessThan(5);
});
