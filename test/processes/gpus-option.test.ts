import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openExecutor } from '../../src/app.ts';
import { autoencoderSpec } from '../../src/models/autoencoder/autoencoder.ts';
import { initialize } from '../../src/nn/parameters.ts';
import { keyFromSeed } from '../../src/random/philox.ts';
import { writeModel } from '../../src/storage/model-file.ts';
import { openSafetensors } from '../../src/storage/safetensors.ts';
import { autoencoderConfigOf } from '../../src/training/autoencoder-task.ts';
import { newestCheckpoint } from '../../src/training/checkpoint.ts';
import { fillLatentCache } from '../../src/training/fill-cache.ts';
import { runPaths } from '../../src/training/loop.ts';
import { readMetrics } from '../../src/training/metrics.ts';
import { readAutoencoderRecipe, readTransformerRecipe } from '../../src/training/recipe.ts';

const root = resolve(import.meta.dirname, '../..');
let folder: string;
let recipe: string;
let latents: string;

// The reference executor stands for the GPUs; all else is what a training on GPUs runs through.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-gpus-'));
  recipe = join(folder, 'recipe.json');
  latents = join(folder, 'latents');
  const toy = JSON.parse(await readFile(join(root, 'recipes/toy/transformer.json'), 'utf8'));
  const text = { width: 16, headSize: 16, layers: 1, hidden: 16 };
  const overrides = { ...toy.overrides, width: 16, layers: 1, hidden: 16, text };
  const data = { ...toy.data, variants: [{ width: 16, height: 16, frames: 5 }] };
  const budget = { rows: 1, video: 8, text: 24, segments: 2 };
  const intervals = { checkpoint: 2, sample: 1000, log: 1 };
  const captions = { short: 1, medium: 0, detailed: 0, none: 0 };
  const own = { ...toy, overrides, data, budget, intervals, captions, steps: 8 };
  await writeFile(recipe, JSON.stringify(own));
  const file = join(root, 'recipes/toy/autoencoder.json');
  const config = autoencoderConfigOf(await readAutoencoderRecipe(file), file);
  const model = join(folder, 'autoencoder.safetensors');
  const parameters = initialize(autoencoderSpec(config), keyFromSeed(1));
  await writeModel(model, { kind: 'autoencoder', config, parameters });
  await using executor = await openExecutor('cpu');
  const { data: clips } = await readTransformerRecipe(recipe);
  await fillLatentCache(executor, latents, clips, model, { threads: 0 });
});
afterAll(() => rm(folder, { recursive: true }));

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<{ readonly code: number | null; readonly said: string }>;
  /** Resolves when the training's progress says that so many steps are done. */
  readonly reached: (steps: number) => Promise<void>;
}

function start(out: string, ...more: readonly string[]): Running {
  const args = ['train', 'transformer', '--recipe', recipe, '--data', latents, '--out', out];
  const own = ['--device', 'reference', '--gpus', '2', '--threads', '0', ...more];
  const child = spawn(process.execPath, ['bin/zoetrope.js', ...args, ...own], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  const ended = new Promise<{ code: number | null; said: string }>((done) =>
    child.on('close', (code) => done({ code, said })),
  );
  const reached = async (steps: number) => {
    for (;;) {
      const lines = await readMetrics(runPaths(out).metrics);
      if (lines.some(({ step }) => step >= steps)) return;
      await new Promise((done) => setTimeout(done, 20));
    }
  };
  return { child, ended, reached };
}

/** Processes that a process started. */
async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(' ').map(Number);
}

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

type Line = Awaited<ReturnType<typeof curve>>[number];

const curve = async (out: string) =>
  (await readMetrics(runPaths(out).metrics)).map(({ step, loss, gradientNorm }) => ({
    step,
    loss,
    gradientNorm,
  }));

it.skipIf(process.platform !== 'linux')(
  'one process that is killed ends all with one line, and the training goes on from the checkpoint',
  async () => {
    const whole = join(folder, 'whole');
    const { code, said } = await start(whole).ended;
    expect(code, said).toBe(0);
    expect((await readdir(whole)).sort()).toEqual([
      'checkpoints',
      'metrics.jsonl',
      'report.html',
      'transformer.safetensors',
    ]);

    const parts = join(folder, 'parts');
    const first = start(parts);
    await first.reached(3);
    const ranks = await childrenOf(first.child.pid!);
    expect(ranks.length).toBe(2);
    process.kill(ranks[1]!, 'SIGKILL');
    const killed = await first.ended;
    expect(killed.code).toBe(1);
    const lines = killed.said.split('\n').filter((line) => line.startsWith('zoetrope: '));
    expect(lines).toEqual([
      'zoetrope: process 1 of 2: it ended with SIGKILL; all are stopped, and --resume goes on from the newest checkpoint',
    ]);
    expect(ranks.some(isAlive)).toBe(false);

    expect((await start(parts, '--resume').ended).code).toBe(0);
    const [expected, found] = [await curve(whole), await curve(parts)];
    expect(found.map(({ step }) => step)).toEqual(expected.map(({ step }) => step));
    // The reference computes in float64, a checkpoint holds float32.
    for (const [i, { loss }] of found.entries()) expect(loss).toBeCloseTo(expected[i]!.loss, 5);
  },
  180_000,
);

it.skipIf(process.platform !== 'linux')(
  'one process that hangs ends all with one line, and the training goes on from the checkpoint',
  async () => {
    const out = join(folder, 'hangs');
    const running = start(out, '--patience', '0.1');
    await running.reached(3);
    const ranks = await childrenOf(running.child.pid!);
    process.kill(ranks[1]!, 'SIGSTOP');
    const { code, said } = await running.ended;
    expect(code).toBe(1);
    const lines = said.split('\n').filter((line) => line.startsWith('zoetrope: '));
    expect(lines.length).toBe(1);
    expect(lines[0]).toContain('process 1 of 2 does not answer, and no step was finished for 6 s');
    expect(ranks.some(isAlive)).toBe(false);
    expect((await start(out, '--resume').ended).code).toBe(0);
    expect((await curve(out)).at(-1)?.step).toBe(8);
  },
  180_000,
);

it.skipIf(process.platform !== 'linux')(
  'no process is left when the one that started them is killed',
  async () => {
    const running = start(join(folder, 'orphans'));
    await running.reached(1);
    const ranks = await childrenOf(running.child.pid!);
    running.child.kill('SIGKILL');
    await running.ended;
    const deadline = Date.now() + 5000;
    while (ranks.some(isAlive) && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20));
    expect(ranks.some(isAlive)).toBe(false);
  },
  60_000,
);

it('asked to stop, all finish the same step and write a checkpoint', async () => {
  const out = join(folder, 'stopped');
  const running = start(out);
  await running.reached(1);
  running.child.kill('SIGINT');
  const { code, said } = await running.ended;
  expect(code).toBe(1);
  const step = /Stopped after step (\d+)/.exec(said)?.[1];
  expect(said.split('\n').filter((line) => line.includes('goes on')).length).toBe(1);
  expect((await readdir(runPaths(out).checkpoints)).at(-1)).toBe(
    `step-${step?.padStart(8, '0')}.safetensors`,
  );
});

it('with --shard, the curve and the files are the same, and what cannot be divided is refused', async () => {
  const outs = ['undivided', 'divided'].map((name) => join(folder, name)) as [string, string];
  expect((await start(outs[0], '--steps', '4').ended).code).toBe(0);
  expect((await start(outs[1], '--steps', '4', '--shard').ended).code).toBe(0);
  const [expected, found] = (await Promise.all(outs.map(curve))) as [Line[], Line[]];
  expect(found.length).toBe(4);
  for (const [i, { loss, gradientNorm }] of found.entries()) {
    expect(loss).toBeCloseTo(expected[i]!.loss, 5);
    expect(gradientNorm ?? Number.NaN).toBeCloseTo(expected[i]!.gradientNorm!, 4);
  }
  const files = await Promise.all(
    outs.map(async (out) => {
      await using file = await openSafetensors((await newestCheckpoint(runPaths(out).checkpoints))!);
      return [...file.tensors].map(([name, { shape }]) => [name, shape]);
    }),
  );
  expect(files[1]).toEqual(files[0]);

  const whole = JSON.parse(await readFile(recipe, 'utf8'));
  const moved = join(folder, 'muon.json');
  await writeFile(moved, JSON.stringify({ ...whole, optimizer: { ...whole.optimizer, method: 'muon' } }));
  const refused = await start(join(folder, 'refused'), '--shard', '--recipe', moved).ended;
  expect(refused.code).toBe(1);
  expect(refused.said).toContain('moves whole matrices, so --shard cannot divide them');
}, 120_000);

it('a mistake that all make is said once', async () => {
  const { code, said } = await start(join(folder, 'wrong'), '--from', 'none.safetensors').ended;
  expect(code).toBe(1);
  expect(said.split('\n').filter((line) => line.startsWith('zoetrope: ')).length).toBe(1);
});
