import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../..');

it('all GPU scripts together run on the CPU', async () => {
  const out = await mkdtemp(join(tmpdir(), 'zoetrope-gpu-scripts-'));
  try {
    const parts = ['--parts', 'sanitizer,overfit,bench,train', '--precisions', 'tf32'];
    const args = [join(root, 'scripts/gpu/all.ts'), '--dry', '--out', out, ...parts, '--bench=--cases small'];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const summary = stdout.trim().split('\n').slice(-5);
    expect(summary.map((line) => line.replace(/ +code.*/, ''))).toEqual([
      'ok   sanitizer-tf32',
      'ok   overfit-tf32',
      'ok   bench-tf32',
      'ok   train-autoencoder',
      'ok   train-transformer',
    ]);
    expect(await readFile(join(out, 'all.log'), 'utf8')).toContain('0 of 58 results differ');
    expect((await readFile(join(out, 'bench.jsonl'), 'utf8')).trim().split('\n')).toHaveLength(1);
  } finally {
    await rm(out, { recursive: true });
  }
}, 120_000);
