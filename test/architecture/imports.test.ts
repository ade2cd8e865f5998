import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const src = resolve(import.meta.dirname, '../../src');
const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.replaceAll('\\', '/'));

/** Every import and re-export of a file, those of types too: `from '…'`, `import '…'`, `import('…')`, `new URL('…')`. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(src, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const specifiers = [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
  return specifiers
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => relative(src, resolve(src, dirname(file), specifier)).replaceAll('\\', '/'));
}

const graph = new Map(files.map((file) => [file, importsOf(file)]));

/**
 * What each folder may import besides itself; `executors` stands for the contract alone. Folders that are not listed
 * do not exist yet: a new one is a decision to be made here.
 */
const allowed: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  'atomic-file': ['errors'],
  installed: [],
  random: [],
  tensor: [],
  storage: ['atomic-file', 'errors', 'tensor', 'random'],
  executors: ['tensor'],
  processes: ['errors', 'executors'],
  nn: ['tensor', 'random'],
  models: ['errors', 'tensor', 'nn', 'random'],
  diffusion: ['errors', 'tensor', 'random'],
  video: ['atomic-file', 'errors', 'installed', 'random', 'tensor'],
  data: ['atomic-file', 'errors', 'random', 'tensor', 'storage', 'video'],
  pipeline: ['errors', 'random', 'tensor', 'nn', 'models', 'diffusion', 'storage', 'executors', 'video'],
  // Not part of the pipeline, which knows nothing of worlds: it rewrites text before the pipeline sees it.
  prompt: ['errors', 'random', 'data'],
  evaluation: ['errors', 'random', 'models', 'video', 'data', 'pipeline'],
  training: [
    'atomic-file',
    'errors',
    'random',
    'tensor',
    'nn',
    'models',
    'diffusion',
    'storage',
    'video',
    'data',
    'executors',
  ],
  app: ['errors', 'executors', 'installed', 'pipeline', 'tensor'],
  cli: [
    'atomic-file',
    'app',
    'diffusion',
    'errors',
    'executors',
    'installed',
    'pipeline',
    'processes',
    'prompt',
    'random',
    'video',
    'data',
    'evaluation',
    'storage',
    'training',
  ],
  index: [
    'app',
    'errors',
    'executors',
    'nn',
    'pipeline',
    'prompt',
    'random',
    'storage',
    'tensor',
    'training',
    'video',
  ],
};

function folderOf(file: string): string {
  return file.split('/')[0]!.replace(/\.ts$/, '');
}

describe('imports', () => {
  it('see every source file', () => {
    expect(files.length).toBeGreaterThan(50);
    expect(graph.get('tensor/tensor.ts')).toContain('tensor/vocabulary.ts');
    for (const [file, imports] of graph)
      for (const target of imports) expect(files, `${file} imports ${target}`).toContain(target);
  });

  it('go from right to left', () => {
    const wrong = [...graph].flatMap(([file, imports]) =>
      imports
        .filter(
          (target) =>
            folderOf(target) !== folderOf(file) &&
            !(allowed[folderOf(file)] ?? []).includes(folderOf(target)),
        )
        .map((target) => `${file} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });

  it('reach concrete executors from nowhere but app.ts', () => {
    const concrete = (file: string) => /^executors\/[^/]+\//.test(file);
    const wrong = [...graph].flatMap(([file, imports]) =>
      concrete(file) || file === 'app.ts'
        ? []
        : imports.filter(concrete).map((target) => `${file} imports ${target}`),
    );
    expect(wrong).toEqual([]);
    const across = [...graph].flatMap(([file, imports]) =>
      concrete(file)
        ? imports
            .filter((target) => concrete(target) && target.split('/')[1] !== file.split('/')[1])
            .map((target) => `${file} imports ${target}`)
        : [],
    );
    expect(across).toEqual([]);
  });

  it('have no cycles, those of types included', () => {
    const done = new Set<string>();
    const path: string[] = [];
    const cycles: string[] = [];
    const visit = (file: string) => {
      if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(' -> '));
      if (done.has(file) || path.includes(file)) return;
      path.push(file);
      for (const target of graph.get(file) ?? []) visit(target);
      path.pop();
      done.add(file);
    };
    for (const file of files) visit(file);
    expect(cycles).toEqual([]);
  });
});
