/**
 * Most of what a GPU host is asked to show: `node scripts/gpu/all.ts [options]`, after `. scripts/gpu/setup.sh`.
 *
 *   --parts NAME,..       doctor, conformance, block, sanitizer, overfit, precisions, bench, train, generate;
 *                         default all
 *   --precisions NAME,..  default fp32,tf32,bf16,fp8; training and bench in the last but fp8, which sampling alone has
 *   --out DIR             for all.log, bench.jsonl and clips; default $OUT, else ./gpu-results
 *   --limit SECONDS       of each command; default 540
 *   --bench="OPTIONS"     of bench/gpu/compare.ts, separated by spaces
 *   --dry                 a dry run on the CPU, at small sizes
 *
 * Ends with a line for each command: its code and seconds. The exit code is 1 when one of them failed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { precisions } from '../../src/executors/executor.ts';

const { values: options } = parseArgs({
  options: {
    parts: {
      type: 'string',
      default: 'doctor,conformance,block,sanitizer,overfit,precisions,bench,train,generate',
    },
    precisions: { type: 'string', default: precisions.join() },
    out: { type: 'string', default: process.env.OUT ?? 'gpu-results' },
    limit: { type: 'string', default: '540' },
    bench: { type: 'string', default: '' },
    dry: { type: 'boolean', default: false },
  },
});

/** One command of a part, and what Node is run on. */
interface Command {
  readonly name: string;
  readonly args: readonly string[];
  /** A program that runs Node under it. */
  readonly under?: readonly string[];
}

const root = resolve(import.meta.dirname, '../..');
const out = resolve(options.out);
const chosen = options.precisions.split(',');
/** Those that have gradients, and of them those that are worth training in. */
const full = chosen.filter((precision) => precision !== 'fp8');
const trainable = full.filter((precision) => precision !== 'fp32');
const last = full.at(-1) ?? 'bf16';
const device = options.dry ? 'cpu' : 'nvidia';
/** Errors of conformance cases relative to the largest value. */
const tolerances: Readonly<Record<string, string>> = { fp32: '2e-6', tf32: '2e-2', bf16: '2e-2' };
const sanitizer = ['compute-sanitizer', '--tool', 'memcheck', '--error-exitcode', '9'];

const parts: Readonly<Record<string, () => readonly Command[]>> = {
  doctor: () => [zoetrope('doctor', 'doctor')],
  conformance: () =>
    chosen.map((precision) => script('conformance', precision, [tolerances[precision] ?? '2e-2'])),
  // The second run records a graph.
  block: () => full.map((precision) => script('block-step', precision, ['2'])),
  sanitizer: () =>
    full.map((precision) => ({
      ...script('block-step', precision, ['1']),
      name: `sanitizer-${precision}`,
      ...(!options.dry && { under: sanitizer }),
    })),
  overfit: () => trainable.map((precision) => script('overfit', precision, options.dry ? ['20'] : [])),
  precisions: () => [
    {
      name: 'precisions',
      args: [
        'scripts/gpu/precisions.ts',
        'transformer',
        ...(options.dry
          ? ['recipes/toy/transformer.json', '2', device]
          : ['recipes/micro/transformer.json', '300', ...full]),
      ],
    },
  ],
  bench: () => [
    bench(last),
    ...(chosen.includes('fp8') ? [bench('fp8', ['--cases', 'wan']), fp8Error()] : []),
  ],
  train: () => {
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-train-'));
    process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
    const on = ['--device', device, ...(options.dry ? [] : ['--precision', last])];
    const train = (kind: string) =>
      ['train', kind, '--recipe', `recipes/toy/${kind}.json`, '--out', join(folder, kind), ...on] as const;
    const weights = join(folder, 'autoencoder/autoencoder.safetensors');
    const micro = ['--recipe', 'recipes/micro/autoencoder.json', '--steps', '400', ...on];
    const rate = zoetrope('train-micro', 'train', 'autoencoder', ...micro, '--out', join(folder, 'micro'));
    return [
      zoetrope('train-autoencoder', ...train('autoencoder')),
      zoetrope('train-transformer', ...train('transformer'), '--autoencoder', weights),
      ...(options.dry ? [] : [rate]),
    ];
  },
  // The shipped weights, the same noise in each precision: clips to look at.
  generate: () =>
    chosen.map((precision) =>
      zoetrope(
        `generate-${precision}`,
        'generate',
        'a red ball bounces on green grass at sunset',
        ...['--seed', '1', '--out', join(out, `${precision}.webp`), '--device', device],
        ...(options.dry ? ['--steps', '2', '--frames', '5'] : ['--precision', precision]),
      ),
    ),
};

function script(file: string, precision: string, args: readonly string[]): Command {
  return { name: `${file}-${precision}`, args: [join('scripts/gpu', `${file}.ts`), precision, ...args] };
}

function zoetrope(name: string, ...args: readonly string[]): Command {
  return { name, args: ['bin/zoetrope.js', ...args] };
}

/** How far the results of fp8 are from those of bf16. */
function fp8Error(): Command {
  return { name: 'fp8-error', args: ['bench/gpu/fp8-error.ts', ...(options.dry ? ['--dry'] : [])] };
}

function bench(precision: string, more: readonly string[] = []): Command {
  const json = join(out, 'bench.jsonl');
  const given = options.bench.split(' ').filter((word) => word !== '');
  const dry = ['--sizes', 'tiny', '--device', device, '--peers', 'none', '--rounds', '2'];
  const args = ['--precision', precision, '--json', json, ...given, ...more, ...(options.dry ? dry : [])];
  return { name: `bench-${precision}`, args: ['bench/gpu/compare.ts', ...args] };
}

mkdirSync(out, { recursive: true });
const log = openSync(join(out, 'all.log'), 'a');
const commands = options.parts.split(',').flatMap((part) => {
  const make = parts[part];
  if (make === undefined) throw new Error(`part ${part}: use some of ${Object.keys(parts).join()}`);
  return make();
});
const results: string[] = [];
for (const command of commands) {
  const start = performance.now();
  const code = await run(command);
  const seconds = (performance.now() - start) / 1000;
  if (code !== 0) process.exitCode = 1;
  results.push(
    `${code === 0 ? 'ok  ' : 'FAIL'} ${command.name.padEnd(22)} code ${code}, ${seconds.toFixed(1)} s`,
  );
}
say(`\n${results.join('\n')}\n`);

/** Runs a command, what it prints shown and kept; one that takes too long is ended. */
function run({ name, args, under = [] }: Command): Promise<number | string> {
  const [program = process.execPath, ...rest] = [...under, process.execPath, ...args];
  if (under.length > 0 && spawnSync(program, ['--version']).error !== undefined) {
    say(`${name}: ${program} is not installed\n`);
    return Promise.resolve('missing');
  }
  say(`\n== ${name}: ${[...under, 'node', ...args].join(' ')}\n`);
  const env = { ...process.env, GPU_SCRIPTS_DEVICE: device };
  // A process group of its own, so that what it started ends with it.
  const child = spawn(program, rest, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', say);
  const end = () => child.pid !== undefined && process.kill(-child.pid, 'SIGKILL');
  const timer = setTimeout(end, 1000 * Number(options.limit));
  process.once('SIGINT', end);
  return new Promise((done) => {
    const finish = (code: number | string) => {
      clearTimeout(timer);
      process.off('SIGINT', end);
      done(code);
    };
    child.on('error', (error) => finish(error.message));
    child.on('close', (code, signal) => finish(code ?? signal ?? 'unknown'));
  });
}

function say(text: string | Uint8Array): void {
  process.stdout.write(text);
  writeSync(log, typeof text === 'string' ? Buffer.from(text) : text);
}
