import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { readVideo } from '../src/video/read.ts';

const root = resolve(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

const [training = '', generating = ''] = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(
  ([, code]) => code,
);

/** Runs an example in a folder of its own, and what it printed. */
async function runExample(code: string, see: (folder: string, stdout: string, stderr: string) => unknown) {
  const folder = await mkdtemp(join(tmpdir(), 'zoetrope-readme-'));
  try {
    const file = join(folder, 'example.ts');
    const library = pathToFileURL(join(root, 'src/index.ts')).href;
    writeFileSync(file, code.replace("from 'zoetrope'", `from '${library}'`));
    const { stdout, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8', cwd: folder });
    await see(folder, stdout, stderr);
  } finally {
    await rm(folder, { recursive: true });
  }
}

it('the training of the README runs, and its loss falls', () =>
  runExample(training, (_folder, stdout, stderr) => {
    const losses = stdout.trim().split('\n').map(Number);
    expect(losses.length, stderr).toBe(5);
    expect(losses[4]!).toBeLessThan(losses[0]! / 2);
  }));

it('the generation of the README runs with the shipped weights, and makes its video', () =>
  runExample(generating, async (folder, _stdout, stderr) => {
    expect(stderr).toBe('');
    const { frames, width, height } = await readVideo(join(folder, 'ball.mp4'));
    expect([frames, width, height]).toEqual([25, 64, 64]);
  }));

it('CI runs the commands of the README', () => {
  const commands =
    readme
      .match(/```sh\n([\s\S]*?)```/)?.[1]
      ?.trim()
      .split('\n') ?? [];
  const ci = readFileSync(join(root, '.ci/run'), 'utf8').split('\n');
  expect(commands).toEqual(['npm ci', 'npm test']);
  for (const command of commands) expect(ci).toContain(command);
});
