import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { expect, it } from 'vitest';

const src = resolve(import.meta.dirname, '../../src');

/** Packages that loading a file loads, its own static imports followed; types and dynamic imports load nothing. */
function packagesOf(file: string, seen = new Set<string>()): string[] {
  if (seen.has(file)) return [];
  seen.add(file);
  const text = readFileSync(file, 'utf8').replaceAll(/^import type [\s\S]*?;$/gm, '');
  const specifiers = [...text.matchAll(/^(?:import|export)(?: [^;]*?from)? '([^']+)';/gm)].map(
    (one) => one[1]!,
  );
  return specifiers.flatMap((specifier) =>
    specifier.startsWith('.') ? packagesOf(resolve(dirname(file), specifier), seen) : [specifier],
  );
}

it.each([
  'cli/train-autoencoder.ts',
  'cli/train-cache.ts',
  'cli/train-transformer.ts',
  'training/batch-worker.ts',
])('%s loads without any package, as on a machine that has only Node', (file) => {
  const packages = packagesOf(resolve(src, file));
  expect(packages).toContain('node:worker_threads');
  expect(packages.filter((name) => !name.startsWith('node:'))).toEqual([]);
});
