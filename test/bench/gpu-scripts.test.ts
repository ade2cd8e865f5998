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
    const parts = [
      '--parts',
      'sanitizer,overfit,precisions,bench,train,generate',
      '--precisions',
      'bf16,fp8',
    ];
    const args = [join(root, 'scripts/gpu/all.ts'), '--dry', '--out', out, ...parts, '--bench=--cases small'];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const summary = stdout.trim().split('\n').slice(-10);
    expect(summary.map((line) => line.replace(/ +code.*/, ''))).toEqual([
      'ok   sanitizer-bf16',
      'ok   overfit-bf16',
      'ok   precisions',
      'ok   bench-bf16',
      'ok   bench-fp8',
      'ok   fp8-error',
      'ok   train-autoencoder',
      'ok   train-transformer',
      'ok   generate-bf16',
      'ok   generate-fp8',
    ]);
    expect(await readFile(join(out, 'all.log'), 'utf8')).toContain('0 of 58 results differ');
    const lines = (await readFile(join(out, 'bench.jsonl'), 'utf8')).trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { case: 'small', precision: 'bf16', weights: 'bf16' },
      { case: 'wan', precision: 'fp8', weights: 'bf16' },
    ]);
  } finally {
    await rm(out, { recursive: true });
  }
}, 300_000);
