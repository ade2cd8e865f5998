/**
 * Trains a transformer on a GPU host for a given time, in one call or in several that follow each other on one machine:
 *
 *     . scripts/gpu/setup.sh
 *     node scripts/gpu/train-transformer.ts --recipe recipes/micro/transformer.json --autoencoder AE.safetensors \
 *       --work /tmp/micro --out $OUT --total 1500 --call 560 [--from weights/micro/transformer.safetensors] [--gpus 8] \
 *       [--precision bf16]
 *
 * The first call fills the latent cache, measures the speed, and writes a recipe with as many steps as fit into `--total`
 * seconds; every call trains until all steps are done or its `--call` seconds are over, and the next goes on from there.
 * What is worth keeping goes to `--out`: the recipe, the metrics, the report, and the weights in 16 bits, those of the
 * newest checkpoint while the training is not complete.
 */

import { spawn } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { checkTransformerConfig, transformerPresets } from '../../src/models/transformer/config.ts';
import { transformerSpec } from '../../src/models/transformer/transformer.ts';
import { fileDigest } from '../../src/storage/file-digest.ts';
import { writeModel } from '../../src/storage/model-file.ts';
import { openSafetensors } from '../../src/storage/safetensors.ts';
import type { HostTensor } from '../../src/tensor/host-tensor.ts';
import { entries, mapTree } from '../../src/tensor/tree.ts';
import { readMetrics } from '../../src/training/metrics.ts';
import { provenanceOf } from '../../src/training/provenance.ts';
import { readTransformerRecipe } from '../../src/training/recipe.ts';

const { values } = parseArgs({
  options: {
    recipe: { type: 'string' },
    autoencoder: { type: 'string' },
    work: { type: 'string' },
    out: { type: 'string' },
    total: { type: 'string' },
    call: { type: 'string' },
    from: { type: 'string' },
    device: { type: 'string', default: 'nvidia' },
    gpus: { type: 'string', default: '1' },
    precision: { type: 'string' },
  },
});
const { recipe = '', autoencoder = '', work = '', out = '', total = '', call = '', from } = values;
const program = resolve(import.meta.dirname, '../../bin/zoetrope.js');
const paths = {
  recipe: join(work, 'transformer.json'),
  latents: join(work, 'latents'),
  run: join(work, 'run'),
};
/** Seconds kept for stopping, converting and copying. */
const reserve = 20;
/** Steps over which the speed is measured; the first are slower. */
const probeSteps = 400;
/** Part of the measured speed that is counted on. */
const caution = 0.95;

mkdirSync(work, { recursive: true });
mkdirSync(out, { recursive: true });
if (!existsSync(paths.recipe)) await prepare();
await trainUntil(Number(call) - reserve);
await keep();

async function prepare(): Promise<void> {
  await zoetrope([
    'train',
    'cache',
    '--recipe',
    recipe,
    '--autoencoder',
    autoencoder,
    '--out',
    paths.latents,
  ]);
  const probe = join(work, 'probe');
  await zoetrope([...training(recipe, probe), '--steps', String(probeSteps)]);
  const speeds = (await readMetrics(join(probe, 'metrics.jsonl')))
    .filter(({ step }) => step > probeSteps / 4)
    .map(({ stepsPerSecond = 0 }) => stepsPerSecond)
    .sort((a, b) => a - b);
  rmSync(probe, { recursive: true });
  const speed = speeds[Math.floor(speeds.length / 2)] ?? 1;
  const steps = Math.floor((caution * speed * (Number(total) - seconds() - reserve)) / 100) * 100;
  const given = JSON.parse(readFileSync(recipe, 'utf8')) as { intervals?: object };
  const intervals = { ...given.intervals, checkpoint: Math.max(100, Math.ceil(steps / 20)), log: 50 };
  writeFileSync(paths.recipe, `${JSON.stringify({ ...given, steps, intervals }, null, 2)}\n`);
  console.log(`${speed.toFixed(1)} steps a second: ${steps} steps`);
}

async function trainUntil(end: number): Promise<void> {
  const left = end - seconds();
  console.log(`training for at most ${left.toFixed(0)} s`);
  await zoetrope([...training(paths.recipe, paths.run), '--resume'], left);
}

function training(file: string, folder: string): string[] {
  const begin = from === undefined ? [] : ['--from', from];
  const gpus = ['--gpus', values.gpus];
  const precision = values.precision === undefined ? [] : ['--precision', values.precision];
  return [
    'train',
    'transformer',
    '--recipe',
    file,
    '--data',
    paths.latents,
    '--out',
    folder,
    ...begin,
    ...gpus,
    ...precision,
  ];
}

async function keep(): Promise<void> {
  copyFileSync(paths.recipe, join(out, 'transformer.json'));
  for (const name of ['metrics.jsonl', 'report.html']) {
    if (existsSync(join(paths.run, name))) copyFileSync(join(paths.run, name), join(out, name));
  }
  const last = (await readMetrics(join(paths.run, 'metrics.jsonl'))).at(-1);
  console.log(JSON.stringify(last));
  const made = join(paths.run, 'transformer.safetensors');
  if (existsSync(made)) {
    await run([
      resolve(import.meta.dirname, '../ship-weights.ts'),
      made,
      join(out, 'transformer.safetensors'),
    ]);
  } else await keepCheckpoint();
}

/** The running average of the newest checkpoint as a model file. */
async function keepCheckpoint(): Promise<void> {
  const folder = join(paths.run, 'checkpoints');
  const newest = (existsSync(folder) ? readdirSync(folder) : [])
    .filter((name) => name.startsWith('step-'))
    .sort()
    .at(-1);
  if (newest === undefined) return;
  const read = await readTransformerRecipe(paths.recipe);
  const presets: Readonly<Record<string, object>> = transformerPresets;
  const config = checkTransformerConfig({ ...presets[read.preset], ...read.overrides });
  const spec = transformerSpec(config);
  await using file = await openSafetensors(join(folder, newest));
  const found = new Map<string, HostTensor>();
  for (const [name] of entries(spec)) found.set(name, await file.read(`average.${name}`));
  const parameters = mapTree(spec, (_, name) => found.get(name));
  const command = `zoetrope train transformer --recipe ${recipe} --device ${values.device}, stopped before its last step`;
  const origin = { recipe: read, file: recipe, command, steps: Number(file.metadata.get('step')) };
  const device = [values.device, values.precision].filter((part) => part !== undefined).join(' ');
  const provenance = {
    ...(await provenanceOf(origin, device)),
    autoencoder: await fileDigest(autoencoder),
  };
  const path = join(out, 'partial.safetensors');
  await writeModel(path, { kind: 'transformer', config, parameters, provenance, dtype: 'f16' });
  console.log(`${path}: of ${newest}`);
}

function zoetrope(args: readonly string[], limit?: number): Promise<void> {
  return run([program, ...args, '--device', values.device], limit);
}

/**
 * Runs Node on these arguments; after `limit` seconds it is asked to stop, as Ctrl-C does. What it says of its progress and
 * its errors goes to `log.txt`.
 */
function run(args: readonly string[], limit?: number): Promise<void> {
  const log = join(work, 'log.txt');
  const file = openSync(log, 'a');
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', file] });
  closeSync(file);
  let wasStopped = false;
  const stop = () => {
    wasStopped = true;
    child.kill('SIGINT');
  };
  const timer = limit === undefined ? undefined : setTimeout(stop, Math.max(0, 1000 * limit));
  return new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code) => {
      clearTimeout(timer);
      if (code === 0 || wasStopped) return done();
      const said = readFileSync(log, 'utf8').trim().split('\n').slice(-3).join('\n');
      fail(new Error(`${args.slice(1).join(' ')}: ended with code ${code}\n${said}`));
    });
  });
}

/** Seconds since this script began. */
function seconds(): number {
  return process.uptime();
}
