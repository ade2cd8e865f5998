import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { keyFromSeed, RandomStream } from '../../src/random/philox.ts';
import { openSafetensors } from '../../src/storage/safetensors.ts';
import { runPaths } from '../../src/training/loop.ts';
import { readMetrics } from '../../src/training/metrics.ts';

const root = resolve(import.meta.dirname, '../..');
let folder: string;
let recipe: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-kill-'));
  recipe = join(folder, 'recipe.json');
  const toy = JSON.parse(await readFile(join(root, 'recipes/toy/autoencoder.json'), 'utf8'));
  const intervals = { checkpoint: 3, sample: 1000, log: 1 };
  await writeFile(recipe, JSON.stringify({ ...toy, steps: 60, statisticsClips: 2, intervals }));
});
afterAll(() => rm(folder, { recursive: true }));

/** Trains in a process of its own; killed after so many milliseconds from its first step on. */
async function trainIn(out: string, killAfter?: number): Promise<number | null> {
  const args = [
    'bin/zoetrope.js',
    'train',
    'autoencoder',
    '--recipe',
    recipe,
    '--out',
    out,
    '--threads',
    '0',
  ];
  const child = spawn(process.execPath, [...args, '--resume'], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let timer: NodeJS.Timeout | undefined;
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk;
    if (killAfter !== undefined && said.includes('"progress"')) {
      timer ??= setTimeout(() => child.kill('SIGKILL'), killAfter);
    }
  });
  const code = await new Promise<number | null>((done) => child.on('close', done));
  clearTimeout(timer);
  if (code !== null && code !== 0) throw new Error(said);
  return code;
}

const curve = async (out: string) =>
  (await readMetrics(runPaths(out).metrics)).map(
    ({ stepsPerSecond: _speed, waitedForData: _wait, ...line }) => line,
  );

it('killed at random moments and resumed, the curve is identical and no file is half written', async () => {
  const whole = join(folder, 'whole');
  await trainIn(whole);
  const parts = join(folder, 'parts');
  const random = new RandomStream(keyFromSeed(Date.now()));
  let kills = 0;
  for (let i = 0; i < 4; i++) {
    if ((await trainIn(parts, random.uniform(0, 500))) === null) kills++;
    const { checkpoints } = runPaths(parts);
    for (const name of (await readdir(checkpoints)).filter((one) => one.startsWith('step-'))) {
      await (await openSafetensors(join(checkpoints, name))).close();
    }
  }
  await trainIn(parts);
  expect(kills).toBeGreaterThan(0);
  expect(await curve(parts)).toEqual(await curve(whole));
  const [a, b] = await Promise.all(
    [whole, parts].map((out) => openSafetensors(join(out, 'autoencoder.safetensors'))),
  );
  for (const name of a!.tensors.keys()) expect(await b!.read(name)).toEqual(await a!.read(name));
  await Promise.all([a!.close(), b!.close()]);
}, 60_000);
