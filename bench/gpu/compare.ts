/**
 * Our times beside PyTorch's for the same work on one GPU in the same run: `node bench/gpu/compare.ts [options]`.
 *
 *   --cases NAME,..         of cases.ts; default all
 *   --peers MODE,..         eager, compile, blocks, graphs (peer.py), none; default what is fastest of each case
 *   --precision NAME        ours: fp32, tf32, bf16, fp8; default bf16, which is PyTorch's
 *   --seconds N             most seconds of a case's rounds; default 30
 *   --rounds N              most rounds; default 9
 *   --compile-limit N       seconds after which PyTorch's compilation is given up; default 300
 *   --cold yes|no           whether to compile once with an empty kernel cache first; default yes
 *   --apart                 one side after the other instead of in turns: for GPUs that cannot hold both
 *   --recompute             ours computes blocks again in the backward pass
 *   --weights f32|bf16      ours, in forward passes; default bf16 in bf16 and fp8, as PyTorch's are, else f32
 *   --attention NAME        PyTorch's attention: default, cudnn
 *   --json FILE             appends a line of JSON for each case
 *   --sizes full|tiny       tiny, with --device DEVICE --peer-device cpu, is a dry run
 *
 * Each side is a process of its own. They take turns of about half a second; times are medians over the rounds, ratios
 * medians of the ratios of neighbouring turns. Utilisation is of 989 TFLOP/s, a Hopper GPU's in bf16.
 */
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { precisions } from '../../src/executors/executor.ts';
import { cacheVariable } from '../../src/executors/nvidia/disk-cache.ts';
import { type BenchCase, type CaseName, cases, operations, tinyCase } from './cases.ts';
import { type Answers, type OurSettings, type PeerSettings, Side } from './protocol.ts';

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string', default: Object.keys(cases).join() },
    peers: { type: 'string' },
    precision: { type: 'string', default: 'bf16' },
    seconds: { type: 'string', default: '30' },
    rounds: { type: 'string', default: '9' },
    'compile-limit': { type: 'string', default: '300' },
    cold: { type: 'string', default: 'yes' },
    apart: { type: 'boolean', default: false },
    recompute: { type: 'boolean', default: false },
    weights: { type: 'string' },
    attention: { type: 'string', default: 'default' },
    json: { type: 'string' },
    sizes: { type: 'string', default: 'full' },
    device: { type: 'string', default: 'nvidia' },
    'peer-device': { type: 'string', default: 'cuda' },
    python: { type: 'string', default: 'python3' },
  },
});

/** PyTorch's fastest way of each case. */
const fastest: Readonly<Record<CaseName, string>> = {
  wan: 'compile',
  step64: 'compile',
  step128: 'compile',
  small: 'graphs',
  smallText: 'graphs',
  autoencoder: 'compile',
};

/** Operations a second of an H100 or H200 in bf16, dense. */
const peak = 989e12;
/** Seconds of a turn, more or less. */
const turn = 0.5;
/** Seconds that anything but compiling may take. */
const patience = 180;

/** A side that is ready, and its times by round. */
interface Runner {
  readonly side: Side;
  readonly prepared: Answers['prepare'];
  readonly count: number;
  readonly times: number[];
}

/** What is written of a side. */
interface Figures {
  readonly device: string;
  readonly milliseconds: number;
  readonly lowest: number;
  readonly teraflops: number;
  readonly utilisation: number;
  readonly compileSeconds: number;
  readonly readySeconds: number | undefined;
  readonly memoryBytes: number;
  readonly hostMicroseconds: number;
  /** By round. */
  readonly times: readonly number[];
}

const precision = choice('precision', options.precision, precisions);
const ourSettings: OurSettings = {
  device: options.device,
  precision,
  weights: choice('weights', options.weights ?? defaultWeights(), ['f32', 'bf16']),
  recompute: options.recompute,
};

for (const name of options.cases.split(',') as CaseName[]) {
  const full: BenchCase | undefined = cases[name];
  if (full === undefined) throw new Error(`case ${name}: use some of ${Object.keys(cases).join()}`);
  await compare(name, options.sizes === 'tiny' ? tinyCase(full) : full);
}

/** Of our side, in forward passes. */
function defaultWeights(): string {
  return precision === 'bf16' || precision === 'fp8' ? 'bf16' : 'f32';
}

/** One of some words. */
function choice<T extends string>(option: string, given: string, words: readonly T[]): T {
  const word = words.find((one) => one === given);
  if (word === undefined) throw new Error(`--${option} ${given}: use one of ${words.join()}`);
  return word;
}

async function compare(name: CaseName, given: BenchCase): Promise<void> {
  console.log(`${name}: ${(operations(given) / 1e12).toPrecision(3)} TFLOP, ours ${precision}`);
  const cache = mkdtempSync(join(tmpdir(), 'zoetrope-bench-'));
  try {
    const cold = options.cold === 'yes' ? await coldCompile(given, cache) : undefined;
    const modes = (options.peers ?? fastest[name]).split(',').filter((mode) => mode !== 'none');
    const openers = [
      () => prepareOurs(given, options.cold === 'yes' ? { [cacheVariable]: cache } : {}),
      ...modes.map((mode) => () => preparePeer(given, mode)),
    ];
    const groups = options.apart ? openers.map((opener) => [opener]) : [openers];
    const found = new Map<string, Figures>();
    for (const group of groups) {
      const runners = await openAll(group);
      await takeTurns(runners);
      for (const runner of runners) found.set(runner.side.name, await figuresOf(runner, given));
    }
    report(name, cold, found);
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
}

/** Seconds that our side needs to compile a case of which nothing is on disk. */
async function coldCompile(given: BenchCase, cache: string): Promise<number | undefined> {
  try {
    const { side, prepared } = await prepareOurs(given, { [cacheVariable]: cache });
    side.end();
    return prepared.compileSeconds;
  } catch (error) {
    console.log(`  ours, cold: ${messageOf(error)}`);
    return undefined;
  }
}

/** Those that can be made ready; the others are said. */
async function openAll(openers: readonly (() => Promise<Runner>)[]): Promise<Runner[]> {
  const runners: Runner[] = [];
  for (const opener of openers) {
    try {
      runners.push(await opener());
    } catch (error) {
      console.log(`  not measured: ${messageOf(error)}`);
    }
  }
  return runners;
}

function prepareOurs(given: BenchCase, env: Readonly<Record<string, string>>): Promise<Runner> {
  const side = new Side('ours', [process.execPath, join(import.meta.dirname, 'ours.ts')], env);
  return prepare(side, given, ourSettings, patience);
}

function preparePeer(given: BenchCase, mode: string): Promise<Runner> {
  const caches = join(tmpdir(), 'zoetrope-peer-cache');
  const env = { TORCHINDUCTOR_CACHE_DIR: join(caches, 'inductor'), TRITON_CACHE_DIR: join(caches, 'triton') };
  const side = new Side(`torch ${mode}`, [options.python, join(import.meta.dirname, 'peer.py')], env);
  const settings: PeerSettings = { device: options['peer-device'], mode, attention: options.attention };
  return prepare(side, given, settings, Number(options['compile-limit']));
}

async function prepare(
  side: Side,
  given: BenchCase,
  settings: OurSettings | PeerSettings,
  limit: number,
): Promise<Runner> {
  try {
    const prepared = await side.ask({ do: 'prepare', case: given, settings }, limit);
    const { milliseconds } = await side.ask({ do: 'run', count: 2 }, patience);
    const count = Math.min(300, Math.max(2, Math.round((1000 * turn) / milliseconds)));
    console.log(
      `  ${side.name}: ${prepared.device}, ${(prepared.parameters / 1e6).toFixed(1)}M parameters, ready to run in ` +
        `${prepared.compileSeconds.toFixed(1)} s, about ${milliseconds.toPrecision(3)} ms`,
    );
    return { side, prepared, count, times: [] };
  } catch (error) {
    throw new Error(`${side.name}: ${messageOf(error)}`);
  }
}

/** A side that fails drops out; its times so far stay. */
async function takeTurns(runners: readonly Runner[]): Promise<void> {
  const end = performance.now() + 1000 * Number(options.seconds);
  const failed = new Set<Runner>();
  for (let round = 0; round < Number(options.rounds); round++) {
    if (round > 0 && performance.now() > end) break;
    for (const runner of runners) {
      if (failed.has(runner)) continue;
      try {
        const { milliseconds } = await runner.side.ask({ do: 'run', count: runner.count }, patience);
        runner.times.push(milliseconds);
      } catch (error) {
        failed.add(runner);
        console.log(`  ${runner.side.name}, round ${round}: ${messageOf(error)}`);
      }
    }
  }
}

async function figuresOf({ side, prepared, times }: Runner, given: BenchCase): Promise<Figures> {
  const finish: Answers['finish'] = await side.ask({ do: 'finish' }, patience).catch(() => ({}));
  side.end();
  const milliseconds = median(times);
  const rate = (1000 * operations(given)) / milliseconds;
  return {
    device: prepared.device,
    milliseconds,
    lowest: Math.min(...times),
    teraflops: rate / 1e12,
    utilisation: rate / peak,
    compileSeconds: prepared.compileSeconds,
    readySeconds: prepared.readySeconds,
    memoryBytes: finish.memoryBytes ?? prepared.memoryBytes,
    hostMicroseconds: finish.hostMicroseconds ?? Number.NaN,
    times,
  };
}

function report(
  name: CaseName,
  coldCompileSeconds: number | undefined,
  found: ReadonlyMap<string, Figures>,
): void {
  const ours = found.get('ours');
  const ratios: Record<string, number> = {};
  for (const [side, figures] of found) {
    const { milliseconds, lowest, teraflops, utilisation, compileSeconds, memoryBytes, hostMicroseconds } =
      figures;
    const isOurs = side === 'ours';
    if (!isOurs && ours !== undefined)
      ratios[side] = median(figures.times.flatMap((time, round) => (ours.times[round] ?? Number.NaN) / time));
    console.log(
      [
        `  ${side.padEnd(13)}`,
        `${milliseconds.toPrecision(4)} ms (lowest ${lowest.toPrecision(4)}, ${figures.times.length} rounds)`,
        `${teraflops.toPrecision(3)} TFLOP/s, ${(100 * utilisation).toFixed(1)}%`,
        `${(memoryBytes / 2 ** 30).toFixed(2)} GiB`,
        `host ${hostMicroseconds.toFixed(0)} us`,
        isOurs
          ? `compiled in ${coldCompileSeconds?.toFixed(1) ?? '?'} s cold, ${compileSeconds.toFixed(1)} s warm`
          : `compiled in ${compileSeconds.toFixed(1)} s`,
        ...(isOurs || ours === undefined ? [] : [`ours takes ${ratios[side]?.toFixed(3)} of it`]),
      ].join('; '),
    );
  }
  if (options.json === undefined) return;
  const line = {
    date: new Date().toISOString(),
    commit: process.env.ZOETROPE_COMMIT ?? 'unknown',
    case: name,
    sizes: options.sizes,
    precision,
    apart: options.apart,
    recompute: options.recompute,
    weights: ourSettings.weights,
    attention: options.attention,
    coldCompileSeconds,
    sides: Object.fromEntries(found),
    ratios,
  };
  appendFileSync(options.json, `${JSON.stringify(line)}\n`);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** The first lines of an error. */
function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error))
    .split('\n')
    .slice(0, 4)
    .join(' | ')
    .slice(0, 600);
}
