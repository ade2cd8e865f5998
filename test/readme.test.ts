import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

it('the code of the README runs, and its loss falls', async () => {
  const code = readme.match(/```ts\n([\s\S]*?)```/)?.[1] ?? '';
  const folder = await mkdtemp(join(tmpdir(), 'zoetrope-readme-'));
  try {
    const file = join(folder, 'example.ts');
    writeFileSync(
      file,
      code.replace("from 'zoetrope'", `from '${pathToFileURL(join(root, 'src/index.ts')).href}'`),
    );
    const { stdout, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8' });
    const losses = stdout.trim().split('\n').map(Number);
    expect(losses.length, stderr).toBe(5);
    expect(losses[4]!).toBeLessThan(losses[0]! / 2);
  } finally {
    await rm(folder, { recursive: true });
  }
});

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
