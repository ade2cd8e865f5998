import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasFfprobe, probeFrames } from '../../bench/ffprobe.ts';
import { checkDataset, type DatasetReport } from '../../src/data/preflight/check.ts';
import { reportPage } from '../../src/data/preflight/html.ts';
import { formatReport, groupReasons } from '../../src/data/preflight/text.ts';
import { defaultWindow } from '../../src/data/window.ts';
import { type Video, videoFrom } from '../../src/video/frames.ts';
import { MediaReader } from '../../src/video/read.ts';
import { writeVideo } from '../../src/video/write.ts';

let folder = '';
let report: DatasetReport;
let thumbnails: ReadonlyMap<string, string>;

const window = { ...defaultWindow, maxFrames: 33, rate: 12, minSeconds: 1 };

/** A bright square that slides over a gradient; `hue` makes another video of it. */
function moving(frames: number, rate: number, { width = 96, height = 64, hue = 0 } = {}): Video {
  const data = new Uint8Array(frames * width * height * 3);
  let at = 0;
  for (let frame = 0; frame < frames; frame++) {
    const left = ((frame / frames) * width) / 2;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const inside = x >= left && x < left + width / 4 && y >= height / 4 && y < height / 2;
        data[at++] = inside ? 250 : (x * 200) / width;
        data[at++] = inside ? 250 : (y * 200) / height;
        data[at++] = hue;
      }
    }
  }
  return videoFrom(data, { width, height, rate });
}

async function check(path: string, processes = 2) {
  await using reader = new MediaReader({ processes });
  return await checkDataset(path, { window, reader, processes, thumbnails: true });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-preflight-'));
  const path = (name: string) => join(folder, name);
  await mkdir(path('listed/clips'), { recursive: true });
  await writeVideo(moving(40, 12), path('long.mp4'));
  await writeVideo(moving(40, 12), path('long again.webm'), { quality: 60 });
  await copyFile(path('long.mp4'), path('long copy.mp4'));
  await writeVideo(moving(5, 12, { hue: 90 }), path('short.mp4'));
  await writeVideo(moving(60, 24, { hue: 200 }), path('listed/clips/fast.mp4'));
  const whole = await readFile(path('long.mp4'));
  await writeFile(path('cut.mp4'), whole.subarray(0, whole.length * 0.7));
  await writeFile(path('text.mp4'), 'this is no video');
  await sharp({ create: { width: 64, height: 48, channels: 3, background: '#208040' } }).toFile(
    path('still.png'),
  );
  await writeFile(path('long.txt'), 'a square slides over a gradient');
  const lines = [
    { file: 'clips/fast.mp4', caption: 'first second', end: 1.5 },
    { file: 'clips/fast.mp4', caption: '', start: 1, end: 9 },
    { file: 'clips/gone.mp4', caption: 'not there' },
    { file: '../long.mp4' },
  ];
  await writeFile(path('listed/captions.jsonl'), lines.map((line) => JSON.stringify(line)).join('\n'));
  ({ report, thumbnails } = await check(folder));
});
afterAll(async () => await rm(folder, { recursive: true }));

describe('the preflight', () => {
  test('says what becomes of every clip, and why', () => {
    const told = report.clips.map((clip) => [
      clip.file,
      clip.outcome,
      clip.windows.map(({ frames }) => frames).join('+'),
      clip.reasons[0],
    ]);
    expect(told).toEqual([
      ['cut.mp4', 'skipped', '', expect.stringMatching(/\S/)],
      [
        'long again.webm',
        'trimmed',
        '33',
        'last 7 frames trimmed: too few for another window (13 frames or more)',
      ],
      [
        'long copy.mp4',
        'trimmed',
        '33',
        'last 7 frames trimmed: too few for another window (13 frames or more)',
      ],
      ['long.mp4', 'trimmed', '33', 'last 7 frames trimmed: too few for another window (13 frames or more)'],
      ['short.mp4', 'skipped', '', expect.stringMatching(/^too short: has 5 frames at 12 fps/)],
      ['still.png', 'whole', '1', 'a still'],
      ['text.mp4', 'skipped', '', expect.stringMatching(/not a media file/)],
      ['listed/clips/fast.mp4', 'retimed', '17', '24 fps re-timed to 12 fps: 16 frames left out, 0 repeated'],
      ['listed/clips/fast.mp4', 'retimed', '17', '24 fps re-timed to 12 fps: 16 frames left out, 0 repeated'],
      ['listed/clips/gone.mp4', 'skipped', '', 'no such file'],
    ]);
  });

  test('accounts for every frame', () => {
    for (const { file, media, windows, trimmed } of report.clips) {
      const pieces = [...windows.map(({ source }) => source), ...trimmed];
      expect(
        pieces.reduce((sum, { from, to }) => sum + to - from, 0),
        file,
      ).toBe(media.frames);
    }
    const { totals } = report;
    expect(totals).toMatchObject({ clips: 10, files: 9, stills: 1, damaged: 3, windows: 6 });
    expect(Object.values(totals.outcomes).reduce((a, b) => a + b)).toBe(10);
    expect(totals.leftOutFrames).toBe(32);
  });

  test('names what is wrong, where it is', () => {
    const lines = report.problems.map(({ severity, at, message }) => `${severity} ${at}: ${message}`);
    expect(lines).toEqual([
      expect.stringMatching(/^error listed\/captions.jsonl:4: file '..\/long.mp4' leads out/),
      expect.stringMatching(/^error cut.mp4: /),
      'warning cut.mp4: has no caption',
      'warning long again.webm: has no caption',
      'warning long copy.mp4: has no caption',
      'warning short.mp4: has no caption',
      'warning still.png: has no caption',
      expect.stringMatching(/^error text.mp4: not a media file/),
      'warning text.mp4: has no caption',
      'warning listed/captions.jsonl:2: the caption of listed/clips/fast.mp4 is missing or empty',
      'warning listed/captions.jsonl:2: asks for listed/clips/fast.mp4 up to 9 s, and it ends at 2.50 s',
      'error listed/clips/gone.mp4: no such file',
    ]);
  });

  test('finds copies, re-encoded ones too', () => {
    expect(report.duplicates.exact).toEqual([['long copy.mp4', 'long.mp4']]);
    expect(report.duplicates.near.map((group) => group.filter((file) => file !== 'cut.mp4'))).toEqual([
      ['long again.webm', 'long copy.mp4'],
    ]);
  });

  test('does not depend on the number of processes', async () => {
    expect((await check(folder, 1)).report).toEqual(report);
    expect((await check(folder, 3)).report).toEqual(report);
  });

  test('goes through JSON unchanged', () => {
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  test('stops when told to', async () => {
    await using reader = new MediaReader();
    const signal = AbortSignal.abort(new Error('stop'));
    await expect(checkDataset(folder, { window, reader, processes: 1, signal })).rejects.toThrow('stop');
  });
});

describe('the text', () => {
  test('counts every clip under its reasons, and lists each when asked', () => {
    const text = formatReport(report, { width: 100 });
    expect(text).toContain('10 clips in 9 files');
    expect(text).toMatch(/^ {2}skipped {17}4 {3}40.0% {2}█+$/m);
    expect(text).toContain('24 fps re-timed to 12 fps: 16 frames left out, 0 repeated');
    expect(text.split('\n').every((line) => line.length <= 100)).toBe(true);
    const all = formatReport(report, { all: true });
    for (const { file, outcome } of report.clips)
      if (outcome !== 'whole') expect(all).toContain(`  ${file}: `);
  });

  test('is plain unless colour is wanted, and never passes on control characters', () => {
    const [clip] = report.clips;
    const evil = { ...report, path: 'a\x1b[31mb\u202ec', clips: [{ ...clip!, file: 'x\ny\x07.mp4' }] };
    const text = formatReport(evil, { all: true });
    expect([...text].filter((c) => /\p{Cc}|\p{Cf}/u.test(c) && c !== '\n')).toEqual([]);
    expect(text).toContain('x\u{fffd}y\u{fffd}.mp4');
    expect(formatReport(report, { color: true })).toContain('\x1b[31m');
  });

  test('puts reasons that differ in numbers together', () => {
    const clip = (reason: string) => ({ ...report.clips[0]!, reasons: [reason] });
    expect(groupReasons(['last 1 frame trimmed', 'last 12 frames trimmed', 'other'].map(clip))).toMatchObject(
      [
        { reason: 'last 1–12 frames trimmed', count: 2 },
        { reason: 'other', count: 1 },
      ],
    );
  });
});

describe('the page', () => {
  test('has a card and a picture for every clip, and needs nothing beside it', () => {
    const page = reportPage(report, thumbnails);
    expect(page.split('<article ').length - 1).toBe(report.clips.length);
    const decodable = report.clips.filter(({ media }) => media.frames > 0).length;
    const cards = page.slice(page.indexOf('class="cards"'));
    expect(cards.split('data:image/jpeg;base64,').length - 1).toBe(decodable);
    expect(page).not.toMatch(/(src|href)="(?!data:)/);
    expect(page).toContain("default-src 'none'");
  });

  test('shows what strangers wrote, and never runs it', () => {
    const attack = '"><script>alert(1)</script>';
    const [clip] = report.clips;
    const evil = {
      ...report,
      path: attack,
      ignored: [attack],
      problems: [{ at: attack, message: attack, severity: 'error' as const }],
      duplicates: { exact: [[attack, attack]], near: [] },
      clips: [{ ...clip!, file: attack, captions: { short: attack }, reasons: [attack] }],
    };
    const page = reportPage(evil, new Map());
    expect(page.split('<script>').length - 1).toBe(1);
    expect(page.split('&quot;&gt;&lt;script&gt;').length - 1).toBeGreaterThan(7);
  });
});

test('a dataset without clips is an error, not a row of zeros', async () => {
  const empty = await mkdtemp(join(tmpdir(), 'zoetrope-empty-'));
  const { problems } = (await check(empty)).report;
  expect(problems).toEqual([
    { at: empty, message: expect.stringMatching(/^holds no clips; give a folder/), severity: 'error' },
  ]);
  await rm(empty, { recursive: true });
});

const shared = resolve(import.meta.dirname, '../../../shared/data');
const why = [
  ...(existsSync(shared) ? [] : ['../shared/data is missing']),
  ...(hasFfprobe ? [] : ['/usr/bin/ffprobe is missing']),
];

const title = why.length > 0 ? ` (skipped: ${why.join(', ')})` : '';

test.skipIf(why.length > 0)(`frames and playing time equal ffprobe's${title}`, async () => {
  const files = [
    'emoji-motion/clips/001-smile.mp4',
    'droid-arm/clips/0001.mp4',
    'droid-arm/clips/0162.mp4',
    'robocoin/clips/AIRBOT_MMK2_beauty_sponge_and_cake_to_place-0.mp4',
    'media-cases/avi-sample.avi',
    'media-cases/flv-sample.flv',
    'media-cases/mkv-sample_with_chapters.mkv',
    'media-cases/mp4-iibbibb_editlist_videoonly.mp4',
    'media-cases/mp4-sample_fragmented_sei.mp4',
    'media-cases/hls-cea608-sd-hls0000000000.ts',
    'media-cases/mp4-sample_alac.mp4',
  ];
  const subset = await mkdtemp(join(tmpdir(), 'zoetrope-subset-'));
  for (const [i, file] of files.entries())
    await copyFile(join(shared, file), join(subset, `${i + 10}-${file.split('/').at(-1)}`));
  const { clips } = (await check(subset)).report;
  for (const { file, media } of clips) {
    const probed = await probeFrames(join(subset, file));
    expect(media.frames, file).toBe(probed.frames);
    expect(Math.abs(media.seconds - probed.seconds), file).toBeLessThanOrEqual(
      1.01 / Math.max(1, media.rate),
    );
  }
  await rm(subset, { recursive: true });
});
