import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { main } from '../../src/cli/main.ts';
import { writeTinyModel } from '../pipeline/tiny-model.ts';

let folder: string;
const at = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-evaluate-'));
  await mkdir(at('model'));
  await writeTinyModel(at('model'));
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs a command in process; `abortAfter` interrupts it when so many lines of progress are written. */
async function run(argv: readonly string[], abortAfter = Number.POSITIVE_INFINITY) {
  const written = { stdout: '', stderr: '' };
  const controller = new AbortController();
  const sink = (name: keyof typeof written) =>
    new Writable({
      write(chunk, _encoding, done) {
        written[name] += chunk;
        if (name === 'stderr' && written.stderr.split('\n').length > abortAfter) controller.abort();
        done();
      },
    });
  const terminal = { stdout: sink('stdout'), stderr: sink('stderr'), signal: controller.signal };
  const code = await main(['evaluate', ...argv], terminal);
  return { code, ...written };
}

const rendered = ['--rendered', '--size', '48x48x13,48x48x1', '--seed', '5'];

describe('zoetrope evaluate', () => {
  it('measures rendered worlds: a table, JSON, sheets with their text', async () => {
    const places = ['--out', at('r.json'), '--sheets', at('sheets')];
    const { code, stdout } = await run([...rendered, '--prompts', '3', ...places]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^48x48x13 at 12 frames a second\n.*right.*95% interval\n {2}colour/);
    const { sizes } = JSON.parse(await readFile(at('r.json'), 'utf8'));
    expect(sizes.map((size: { prompts: unknown[] }) => size.prompts.length)).toEqual([3, 3]);
    expect(sizes[0].accuracy.background).toMatchObject({ right: 3, asked: 3 });
    expect((await readdir(at('sheets'))).sort()).toEqual(
      ['13', '1']
        .flatMap((frames) => ['png', 'txt'].map((ending) => `48x48x${frames}-0000.${ending}`))
        .sort(),
    );
  });

  it('goes on from the results in its file, and begins anew for other settings', async () => {
    const path = at('resume.json');
    const command = ['--rendered', '--size', '48x48x5', '--prompts', '2', '--out', path];
    await run(command);
    const text = await readFile(path, 'utf8');
    const report = JSON.parse(text);
    // A mark that only results of the first run can have.
    report.sizes[0].prompts[0].prompt = 'from before';
    await writeFile(
      path,
      JSON.stringify({ ...report, sizes: [{ ...report.sizes[0], prompts: [report.sizes[0].prompts[0]] }] }),
    );
    await run(command);
    const resumed = JSON.parse(await readFile(path, 'utf8')).sizes[0].prompts;
    expect(resumed.map(({ index }: { index: number }) => index)).toEqual([0, 1]);
    expect(resumed[0].prompt).toBe('from before');
    expect(resumed[1]).toEqual(JSON.parse(text).sizes[0].prompts[1]);
    await run([...command, '--seed', '6']);
    expect(await readFile(path, 'utf8')).not.toContain('from before');
  });

  it('measures a model: prompts, autoencoder, flow loss', async () => {
    const model = ['--model', at('model'), '--device', 'cpu', '--steps', '1', '--guidance', '1'];
    const few = ['--size', '16x16x5', '--prompts', '1', '--clips', '1', '--out', at('m.json')];
    const { code, stdout } = await run([...model, ...few]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/PSNR -?\d+\.\d\d dB .* SSIM .*flicker/);
    expect(stdout).toMatch(/flow loss \d+\.\d{4}, by timestep/);
    const { settings, sizes } = JSON.parse(await readFile(at('m.json'), 'utf8'));
    expect(settings.transformer).toMatch(/^[0-9a-f]{64}$/);
    expect(sizes[0].flow).toHaveLength(10);
    expect(sizes[0].prompts).toHaveLength(1);
  });

  it('stops at Ctrl-C, keeps what it has, and says so', async () => {
    const out = ['--out', at('stopped.json')];
    const { code, stderr } = await run([...rendered, '--prompts', '50', ...out], 1);
    expect(code).toBe(1);
    expect(stderr).toContain('Stopped; the same command goes on from there');
    const kept = JSON.parse(await readFile(at('stopped.json'), 'utf8')).sizes[0].prompts;
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.length).toBeLessThan(50);
  });

  it.each([
    [['--size', '64'], /--size must be WIDTHxHEIGHT/],
    [['--prompts', '0'], /--prompts must be a whole number/],
    [['--only', 'flows'], /--only must be of .* did you mean 'flow'/],
    [['--camera', 'drone'], /--camera must be of/],
  ])('refuses %j with one line and exit code 2', async (argv, message) => {
    const { code, stderr } = await run(['--rendered', ...argv]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});
