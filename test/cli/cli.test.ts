import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defineCommand, numberOption, suggestion } from '../../src/cli/command.ts';
import { commands } from '../../src/cli/commands.ts';
import { main } from '../../src/cli/main.ts';
import { createProgress, formatSeconds } from '../../src/cli/progress.ts';
import { videoFrom } from '../../src/video/frames.ts';
import { writeVideo } from '../../src/video/write.ts';

/** A terminal that keeps what is written. */
function terminal(isTTY = false) {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => {
    const through = new Writable({
      write(bytes: Buffer, _encoding, done) {
        written[name] += bytes.toString();
        done();
      },
    });
    return Object.assign(through, { isTTY, columns: 80 });
  };
  return {
    written,
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    signal: new AbortController().signal,
  };
}

async function run(...argv: string[]) {
  const { written, ...surroundings } = terminal();
  const code = await main(argv, surroundings);
  return { code, ...written };
}

describe('the program', () => {
  test('without arguments shows its help and fails; with --help it does not fail', async () => {
    const asked = await run('--help');
    expect(asked).toMatchObject({ code: 0, stderr: '' });
    expect(asked.stdout).toMatch(/Usage: zoetrope COMMAND[\s\S]*dataset check[\s\S]*Example:/);
    expect(await run()).toMatchObject({ code: 2, stdout: '', stderr: asked.stdout });
  });

  test('knows its version', async () => {
    expect(await run('--version')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
  });

  test('has help with an example for every command', async () => {
    for (const [name, entry] of Object.entries(commands)) {
      const paths =
        'commands' in entry ? Object.keys(entry.commands).map((nested) => [name, nested]) : [[name]];
      if ('commands' in entry) expect((await run(name, '--help')).stdout).toMatch(/Example:\n {2}zoetrope /);
      for (const path of paths) {
        const { code, stdout } = await run(...path, '--help');
        expect(code).toBe(0);
        expect(stdout).toMatch(
          new RegExp(`Usage: zoetrope ${path.join(' ')}[\\s\\S]*Example:\\n {2}zoetrope ${path.join(' ')}`),
        );
        expect(
          stdout.split('\n').every((line) => line.length <= 120),
          `${path.join(' ')}: lines of at most 120`,
        ).toBe(true);
      }
    }
  });

  const mistakes: [string[], string][] = [
    [['datset'], "zoetrope: unknown command 'datset', did you mean 'dataset'; see zoetrope --help\n"],
    [['--loud'], "zoetrope: unknown option '--loud'; see zoetrope --help\n"],
    [['toString'], "zoetrope: unknown command 'toString'; see zoetrope --help\n"],
    [
      ['dataset', 'chek'],
      "zoetrope dataset: unknown command 'chek', did you mean 'check'; see zoetrope dataset --help\n",
    ],
    [
      ['dataset', 'check', 'a', '--jsno'],
      "zoetrope dataset check: unknown option --jsno, did you mean '--json'; see zoetrope dataset check --help\n",
    ],
    [
      ['dataset', 'check', 'a', '--html'],
      'zoetrope dataset check: option --html needs a value FILE; see zoetrope dataset check --help\n',
    ],
    [
      ['dataset', 'check', 'a', '--html', '--json'],
      'zoetrope dataset check: option --html needs a value FILE; see zoetrope dataset check --help\n',
    ],
    [
      ['dataset', 'check', '--json=yes', 'a'],
      "zoetrope dataset check: option --json takes no value, got 'yes'; see zoetrope dataset check --help\n",
    ],
    [
      ['dataset', 'check', 'a', 'b'],
      "zoetrope dataset check: unexpected argument 'b'; see zoetrope dataset check --help\n",
    ],
    [
      ['dataset', 'check', 'a', '--processes', '0'],
      "zoetrope: --processes must be a whole number from 1 to 256, got '0'\n",
    ],
    [
      ['train', 'autoencoder', '--recipe', 'a', '--out', 'b', '--device', 'nvidia', '--precision', 'bf8'],
      "zoetrope: --precision must be one of fp32, tf32, bf16, got 'bf8'\n",
    ],
    [
      ['train', 'transformer', '--recipe', 'a', '--out', 'b', '--device', 'nvidia', '--precision', 'fp8'],
      'zoetrope: --precision fp8 is for making videos, not for training; use bf16\n',
    ],
    [
      ['train', 'autoencoder', '--recipe', 'a', '--out', 'b', '--precision', 'tf32'],
      'zoetrope: --precision tf32 is of --device nvidia, not of cpu; leave it out\n',
    ],
    [
      ['train', 'autoencoder', '--recipe', 'a', '--out', 'b', '--device', 'webgpu', '--precision', 'bf16'],
      'zoetrope: --precision bf16 is of --device cpu and nvidia, not of webgpu; leave it out\n',
    ],
  ];
  test.each(mistakes)('%j is one line and exit code 2', async (argv, stderr) => {
    expect(await run(...argv)).toEqual({ code: 2, stdout: '', stderr });
  });

  test('a mistake in the data is one line and exit code 1', async () => {
    expect(await run('dataset', 'check', '/no/such/folder')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'zoetrope: /no/such/folder: no such file or folder; check the path\n',
    });
  });
});

describe('a command', () => {
  const command = defineCommand({
    description: 'Test.',
    positionals: [
      { name: 'A', help: 'first' },
      { name: 'B', help: 'second', optional: true },
    ],
    options: {
      count: { type: 'string', value: 'N', short: 'n', help: 'How many', default: '3' },
      name: { type: 'string', help: 'Name' },
      loud: { type: 'boolean', help: 'Loud' },
    },
    example: 'zoetrope test x',
    run: async ({ values, positionals }) => {
      seen = { ...values, positionals };
      return 0;
    },
  });
  let seen: unknown;

  test('gets typed values, with defaults', async () => {
    await command.run('zoetrope test', ['x'], terminal());
    expect(seen).toEqual({ count: '3', loud: false, positionals: ['x'] });
    await command.run('zoetrope test', ['-n', '5', '--loud', 'x', '--name=--odd', '--', '--y'], terminal());
    expect(seen).toEqual({ count: '5', loud: true, name: '--odd', positionals: ['x', '--y'] });
  });

  test('reads numbers strictly', () => {
    const range = { min: 0, max: 10 };
    expect([' 3', '1e1', '0.5'].map((text) => numberOption('x', text, range))).toEqual([3, 10, 0.5]);
    for (const text of ['', ' ', 'three', '11', '-1', 'NaN', '3px'])
      expect(() => numberOption('x', text, range)).toThrow(/--x must be/);
    expect(() => numberOption('x', '0.5', { ...range, integer: true })).toThrow(/whole number/);
  });

  test('suggests what is near, and nothing else', () => {
    expect(suggestion('wrlds', ['check', 'worlds'])).toBe(", did you mean 'worlds'");
    expect(suggestion('generate', ['check', 'worlds'])).toBe('');
  });
});

describe('progress', () => {
  function clock() {
    const state = { now: 0 };
    return { state, now: () => state.now };
  }

  test('is a bar with rate and time left on a terminal', () => {
    const screen = terminal(true);
    const { state, now } = clock();
    const progress = createProgress(screen, { label: 'decoding', total: 200, unit: 'files', now });
    state.now = 10_000;
    progress.update(50);
    progress.update(51);
    progress.note('odd file');
    state.now = 40_000;
    progress.update(200);
    progress.finish();
    const lines = screen.written.stderr.split(/[\r\n]+/);
    expect(lines[1]).toMatch(/^decoding █+░+ 50\/200 files, 5\.0\/s, 30 s left/);
    expect(lines.filter((line: string) => line.includes('51/200'))).toEqual([]);
    expect(lines.some((line: string) => line.includes('odd file'))).toBe(true);
    expect(lines.at(-2)).toMatch(/200\/200 files, 5\.0\/s, 40 s/);
    expect(lines.every((line: string) => line.length <= 83)).toBe(true);
  });

  test('ends its line when the job fails, leaving the bar as it was, and once only', () => {
    const failing = (screen: ReturnType<typeof terminal>) => {
      using progress = createProgress(screen, { label: 'decoding', total: 200, unit: 'files' });
      progress.update(50);
      throw new Error('no more');
    };
    const screen = terminal(true);
    expect(() => failing(screen)).toThrow('no more');
    expect(screen.written.stderr).toMatch(/^\rdecoding .*50\/200 files.*\[K\n$/);
    const ended = terminal(true);
    {
      using progress = createProgress(ended, { label: 'decoding', total: 200, unit: 'files' });
      progress.finish();
    }
    expect(ended.written.stderr.split('\n')).toHaveLength(2);
    const elsewhere = terminal(false);
    expect(() => failing(elsewhere)).toThrow('no more');
    expect(elsewhere.written.stderr.trim().split('\n')).toHaveLength(1);
  });

  test('is JSON lines elsewhere', () => {
    const screen = terminal(false);
    const { state, now } = clock();
    const progress = createProgress(screen, { label: 'decoding', total: undefined, unit: 'files', now });
    state.now = 4000;
    progress.update(8);
    progress.note('odd file');
    progress.finish();
    const events = screen.written.stderr
      .trim()
      .split('\n')
      .map((line: string) => JSON.parse(line));
    expect(events).toEqual([
      {
        event: 'progress',
        label: 'decoding',
        unit: 'files',
        done: 8,
        total: null,
        elapsed: 4,
        rate: 2,
        eta: null,
      },
      { event: 'note', text: 'odd file' },
      {
        event: 'done',
        label: 'decoding',
        unit: 'files',
        done: 8,
        total: null,
        elapsed: 4,
        rate: 2,
        eta: null,
      },
    ]);
  });

  test('says seconds as people do', () => {
    expect([0.4, 59, 60, 3599, 3600, 90_061].map(formatSeconds)).toEqual([
      '0 s',
      '59 s',
      '1:00',
      '59:59',
      '1:00:00',
      '25:01:01',
    ]);
  });
});

describe('zoetrope dataset check', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'zoetrope-cli-'));
    const video = videoFrom(new Uint8Array(24 * 64 * 64 * 3).fill(99), { width: 64, height: 64, rate: 24 });
    await writeVideo(video, join(folder, 'a.mp4'));
    await writeFile(join(folder, 'a.txt'), 'grey');
    await writeFile(join(folder, 'recipe.json'), '{"window": {"maxFrames": 9, "minSeconds": 0}}');
  });
  afterAll(async () => await rm(folder, { recursive: true }));

  test('prints text, JSON and a page, from the installed program', async () => {
    const program = resolve(import.meta.dirname, '../../bin/zoetrope.js');
    const page = join(folder, 'report.html');
    const argv = [
      program,
      'dataset',
      'check',
      folder,
      '--json',
      '--html',
      page,
      '--plan-for',
      join(folder, 'recipe.json'),
    ];
    const { stdout, stderr } = await promisify(execFile)(process.execPath, argv);
    const report = JSON.parse(stdout);
    expect(report.totals).toMatchObject({ clips: 1, frames: 24, windows: 3, trimmedFrames: 1 });
    expect(report.clips[0].windows.map((window: { frames: number }) => window.frames)).toEqual([9, 9, 5]);
    for (const line of stderr.trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('event');
    expect((await readdir(folder)).sort()).toEqual(['a.mp4', 'a.txt', 'recipe.json', 'report.html']);
    const text = await run('dataset', 'check', folder);
    expect(text.code).toBe(0);
    expect(text.stdout).toMatch(/1 clip in 1 file: 1 video \(24 frames, 1.0 s\)/);
  });

  test('ends with 130 when interrupted, without a report', async () => {
    const { written, ...surroundings } = terminal();
    const signal = AbortSignal.abort(new Error('interrupted'));
    expect(await main(['dataset', 'check', folder], { ...surroundings, signal })).toBe(130);
    expect(written.stdout).toBe('');
  });

  test('fails with 1 when something is wrong, and refuses a bad place or recipe before it begins', async () => {
    await writeFile(join(folder, 'b.mp4'), 'no video');
    expect((await run('dataset', 'check', folder)).code).toBe(1);
    await rm(join(folder, 'b.mp4'));
    const early = async (...argv: string[]) => await run('dataset', 'check', folder, ...argv);
    expect(await early('--html', '/no/such/place.html')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/there is no folder/),
    });
    expect(await early('--html', folder)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/a folder stands there/),
    });
    expect(await early('--plan-for', join(folder, 'none.json'))).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/no such recipe/),
    });
    expect(await early('--plan-for', join(folder, 'a.txt'))).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/a.txt: not JSON/),
    });
  });
});
