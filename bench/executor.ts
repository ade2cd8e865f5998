/**
 * Speed, compile time and memory of the ONNX executor on the CPU.
 *
 *   node bench/executor.ts [--threads N] [--rounds N] [--only speed|memory] [--work NAME,..] [--no-kernels]
 *
 * Work: a 12-layer transformer of width 384 with 6 heads on 576 tokens, forward and training step with AdamW, beside
 * the same matrix products alone through raw ONNX Runtime; a stack of causal convolutions; the training step at
 * 8 x 1024 tokens with and without recomputation. Timings alternate in one process and are medians; each memory figure
 * comes from a process of its own. `--no-kernels`: without our own operators.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import * as ort from 'onnxruntime-node';
import { type DeviceBuffer, type Executor, inputsOf, uploadTree } from '../src/executors/executor.ts';
import { OnnxModel } from '../src/executors/onnx/model.ts';
import { openOnnxExecutor } from '../src/executors/onnx/open-node.ts';
import type { SequenceLayout } from '../src/nn/attention.ts';
import { residualBlock, residualBlockSpec } from '../src/nn/convolution.ts';
import { initialize, type Parameters, parameterCount } from '../src/nn/parameters.ts';
import { rotaryAngles } from '../src/nn/rotary-positions.ts';
import {
  type TransformerBlockSpec,
  transformerBlock,
  transformerBlockSpec,
} from '../src/nn/transformer-block.ts';
import { fold, keyFromSeed, normal } from '../src/random/philox.ts';
import { gradients } from '../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor } from '../src/tensor/host-tensor.ts';
import { at, elementCount, type TensorType } from '../src/tensor/shape.ts';
import type { Tensor } from '../src/tensor/tensor.ts';
import { block, type Traced, trace } from '../src/tensor/trace.ts';
import { leaves, mapTree, withLeaves } from '../src/tensor/tree.ts';
import { adamSchedule, adamState, adamW } from '../src/training/optimizer.ts';

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '0' },
    rounds: { type: 'string', default: '7' },
    only: { type: 'string' },
    work: { type: 'string', default: 'matmuls,forward,train step,convolutions,gradients' },
    memory: { type: 'string' },
    kernels: { type: 'boolean', default: true },
  },
  allowNegative: true,
});
const threads = Number(options.threads);
const rounds = Number(options.rounds);
const open = () => openOnnxExecutor({ threads, ...(!options.kernels && { kernels: false }) });

const width = 384;
const headSize = 64;
const layers = 12;
const key = keyFromSeed(1);

interface Work {
  readonly traced: Traced<readonly object[], object>;
  readonly values: readonly object[];
  /** Indices of the arguments that a run may overwrite. */
  readonly donated: readonly number[];
}

function f32(...shape: number[]): TensorType {
  return { shape, dtype: 'f32' };
}

function random(type: TensorType, name: string): HostTensor {
  return fromFloat32('f32', type.shape, normal(fold(key, name), elementCount(type.shape)));
}

/** The transformer on `batch` sequences of `tokens`. */
function transformer(batch: number, tokens: number, { recompute = false } = {}) {
  const specs = Array.from({ length: layers }, () => transformerBlockSpec({ width, headSize }));
  const layer = block(
    'layer',
    (p: Parameters<TransformerBlockSpec>, x: Tensor, layout: SequenceLayout) =>
      transformerBlock(p, x, layout),
    { recompute },
  );
  const angles = rotaryAngles(
    Array.from({ length: tokens }, (_, i) => [Math.floor(i / 64), Math.floor(i / 8) % 8, i % 8]),
    [8, 12, 12],
  );
  const inputs = {
    x: f32(batch, tokens, width),
    target: f32(batch, tokens, width),
    angles,
  };
  const values = { ...mapTree({ x: inputs.x, target: inputs.target }, random), angles };
  const parameters = initialize(specs, key);
  return { specs, layer, inputs, values, parameters };
}

function forward(batch: number, tokens: number): Work {
  const { specs, layer, inputs, values, parameters } = transformer(batch, tokens);
  const traced = trace(
    'forward',
    (p, { x, angles }) => p.reduce((h, q) => layer(q, h, angles), x),
    specs,
    inputs,
  );
  return { traced, values: [parameters, values], donated: [] };
}

function trainStep(batch: number, tokens: number, recompute = false): Work {
  const { specs, layer, inputs, values, parameters } = transformer(batch, tokens, { recompute });
  const state = adamState(specs);
  const step = mapTree({ rate: f32(), epsilon: f32(), keep: f32() }, (type) => type);
  const traced = trace(
    'train',
    (p, s, { x, angles, target }, now) => {
      const y = p.reduce((h, q) => layer(q, h, angles), x);
      const loss = y.sub(target).square().mean();
      const { parameters: next, state: nextState } = adamW(p, gradients(loss, p), s, now, {
        maxNorm: 1,
        weightDecay: 0.01,
      });
      return { p: next, s: nextState, loss };
    },
    specs,
    state,
    inputs,
    step,
  );
  const scalars = adamSchedule({ rate: 1e-4 }, 1, { weightDecay: 0.01 });
  const now = withLeaves(
    step,
    [scalars.rate, scalars.epsilon, scalars.keep].map((value) =>
      fromFloat32('f32', [], Float32Array.of(value)),
    ),
  );
  return { traced, values: [parameters, state, values, now], donated: [0, 1] };
}

/** Eight residual blocks of two causal 3x3x3 convolutions each, 32 channels. */
function convolutions(): Work {
  const specs = Array.from({ length: 4 }, () => residualBlockSpec(32, 32));
  const layer = block('residual', residualBlock);
  const x = f32(1, 9, 32, 32, 32);
  const traced = trace('convolutions', (p, input) => p.reduce((h, q) => layer(q, h), input), specs, x);
  return { traced, values: [initialize(specs, key), random(x, 'x')], donated: [] };
}

function convolutionGradients(): Work {
  const specs = Array.from({ length: 4 }, () => residualBlockSpec(32, 32));
  const layer = block('residual', residualBlock);
  const x = f32(1, 9, 32, 32, 32);
  const traced = trace(
    'convolution gradients',
    (p, input) =>
      gradients(
        p
          .reduce((h, q) => layer(q, h), input)
          .square()
          .mean(),
        p,
      ),
    specs,
    x,
  );
  return { traced, values: [initialize(specs, key), random(x, 'x')], donated: [] };
}

/** Prepares work on an executor; each call runs it once, donated outputs becoming the next inputs. */
async function prepare(
  executor: Executor,
  { traced, values, donated }: Work,
): Promise<{ compile: number; run: () => Promise<void> }> {
  const start = performance.now();
  const donate = inputsOf(traced.parameters, ...donated);
  const executable = await executor.compile(traced.graph, { donate });
  const compile = performance.now() - start;
  const inputs = values.flatMap((tree) => leaves(uploadTree(executor, tree)) as DeviceBuffer[]);
  const run = async () => {
    const outputs = await executor.run(executable, inputs);
    donate.forEach((index, i) => {
      inputs[index] = at(outputs, i);
    });
    for (const output of outputs.slice(donate.length)) output[Symbol.dispose]();
  };
  return { compile, run };
}

/** The transformer's matrix products alone, weights fed, in one raw session. */
async function rawMatmuls(
  batch: number,
  tokens: number,
): Promise<{ flops: number; run: () => Promise<void> }> {
  const model = new OnnxModel();
  const rows = batch * tokens;
  const heads = width / headSize;
  const feeds: Record<string, ort.Tensor> = {};
  let flops = 0;
  const feed = (shape: number[]) => {
    const name = `i${Object.keys(feeds).length}`;
    feeds[name] = new ort.Tensor('float32', normal(fold(key, name), elementCount(shape)), shape);
    return model.input(name, 'float', shape);
  };
  // Only a corner of each product is fetched: copying results out is not the product's work.
  const fetch = (name: string, rank: number) => {
    const [zeros, ones] = [0, 1].map((value) =>
      model.constant('int64', [rank], new Array<number>(rank).fill(value)),
    );
    const corner = model.node('Slice', [name, zeros ?? '', ones ?? ''])[0] ?? '';
    model.output(corner, 'float', new Array<number>(rank).fill(1));
  };
  const gemm = (inputs: number, outputs: number, x: string) => {
    flops += 2 * rows * inputs * outputs;
    return model.node('Gemm', [x, feed([outputs, inputs])], { transB: 1 })[0] ?? '';
  };
  const matmul = (a: string, b: string) => model.node('MatMul', [a, b])[0] ?? '';
  const [x, hidden] = [feed([rows, width]), feed([rows, 4 * width])];
  const [q, kTransposed, p] = [
    feed([batch, heads, tokens, headSize]),
    feed([batch, heads, headSize, tokens]),
    feed([batch, heads, tokens, tokens]),
  ];
  for (let layer = 0; layer < layers; layer++) {
    fetch(gemm(width, 3 * width, x), 2);
    fetch(gemm(width, width, x), 2);
    fetch(gemm(width, 4 * width, x), 2);
    fetch(gemm(4 * width, width, hidden), 2);
    flops += 4 * batch * tokens * tokens * width;
    fetch(matmul(q, kTransposed), 4);
    fetch(matmul(p, q), 4);
  }
  const session = await ort.InferenceSession.create(model.finish(), {
    logSeverityLevel: 3,
    ...(threads > 0 && { intraOpNumThreads: threads }),
    extra: {
      // Idle threads sleep, as ours do: spinning ones would take cores from whatever else runs.
      session: { intra_op: { allow_spinning: '0' } },
      // All layers multiply the same activations; each is to do so itself.
      optimization: { disable_specified_optimizers: 'CommonSubexpressionElimination' },
    },
  });
  return {
    flops,
    run: async () => {
      await session.run(feeds);
    },
  };
}

/** Milliseconds by the clock, and of all cores together. */
interface Cost {
  readonly wall: number;
  readonly cpu: number;
}

async function measure(run: () => Promise<void>): Promise<Cost> {
  const [start, before] = [performance.now(), process.cpuUsage()];
  await run();
  const { user, system } = process.cpuUsage(before);
  return { wall: performance.now() - start, cpu: (user + system) / 1000 };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

interface Row {
  readonly name: string;
  readonly flops: number;
  /** Milliseconds to compile; absent for what is not ours. */
  readonly compile?: number;
  readonly run: () => Promise<void>;
  readonly costs: Cost[];
}

async function measureSpeed(): Promise<void> {
  await using executor = open();
  const raw = await rawMatmuls(1, 576);
  const row = async (name: string, flops: number, work: Work): Promise<Row> => ({
    name,
    flops,
    costs: [],
    ...(await prepare(executor, work)),
  });
  const convolutionFlops = 8 * 2 * 27 * 32 * 32 * 9 * 32 * 32;
  const matmuls: Row = { name: 'matmuls', flops: raw.flops, costs: [], run: raw.run };
  const forwards = await row('forward', raw.flops, forward(1, 576));
  const steps = await row('train step', 3 * raw.flops, trainStep(1, 576));
  const all = [
    matmuls,
    forwards,
    steps,
    await row('convolutions', convolutionFlops, convolutions()),
    await row('gradients', 3 * convolutionFlops, convolutionGradients()),
  ];
  const rows = all.filter(({ name }) => options.work.split(',').includes(name));
  for (const { run } of rows) await run();
  for (let round = 0; round < rounds; round++)
    for (const { run, costs } of rows) costs.push(await measure(run));

  const parameters = (parameterCount(transformer(1, 576).specs) / 1e6).toFixed(1);
  console.log(
    `transformer: ${layers} layers, width ${width}, 576 tokens, ${parameters}M parameters; medians of ${rounds}`,
  );
  for (const { name, flops, compile, costs } of rows) {
    const [wall, cpu] = [median(costs.map(({ wall }) => wall)), median(costs.map(({ cpu }) => cpu))];
    const columns = [
      name.padEnd(13),
      `${wall.toFixed(1).padStart(8)} ms`,
      `${(flops / wall / 1e6).toFixed(1).padStart(7)} GFLOP/s`,
      `${cpu.toFixed(0).padStart(7)} ms of CPU`,
      compile === undefined ? '' : `compile ${compile.toFixed(0)} ms`,
    ];
    console.log(columns.join('  '));
  }
  console.log(
    `forward reaches ${percent(ratio(matmuls, forwards, 'wall'))} of the throughput of its matrix products alone (${percent(ratio(matmuls, forwards, 'cpu'))} by CPU time)`,
  );
  console.log(
    `a training step costs ${ratio(steps, forwards, 'wall').toFixed(2)} forwards (${ratio(steps, forwards, 'cpu').toFixed(2)} by CPU time)`,
  );
}

/** Median of the ratios of runs that are neighbours in time: noise that comes and goes hits both. */
function ratio(a: Row, b: Row, by: keyof Cost): number {
  return median(a.costs.map((cost, round) => cost[by] / (b.costs[round]?.[by] ?? Number.NaN)));
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

/** Peak memory of a few training steps at 8 x 1024 tokens, in a process of its own. */
async function measureMemory(recompute: boolean): Promise<void> {
  await using executor = open();
  const { run } = await prepare(executor, trainStep(8, 1024, recompute));
  const times: number[] = [];
  for (let step = 0; step < 3; step++) times.push((await measure(run)).wall);
  console.log(JSON.stringify({ peak: process.resourceUsage().maxRSS / 1024, time: median(times) }));
}

function memoryOf(recompute: boolean): { peak: number; time: number } {
  const args = [
    import.meta.filename,
    '--threads',
    String(threads),
    '--memory',
    recompute ? 'recompute' : 'keep',
    ...(options.kernels ? [] : ['--no-kernels']),
  ];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as { peak: number; time: number };
}

function compareMemory(): void {
  const [kept, recomputed] = [memoryOf(false), memoryOf(true)];
  console.log(
    `training step at 8 x 1024 tokens: peak ${kept.peak.toFixed(0)} MiB, ${(kept.time / 1000).toFixed(1)} s; recomputing ${recomputed.peak.toFixed(0)} MiB (${percent(recomputed.peak / kept.peak)}), ${(recomputed.time / 1000).toFixed(1)} s`,
  );
}

if (options.memory !== undefined) {
  await measureMemory(options.memory === 'recompute');
} else {
  if (options.only !== 'memory') await measureSpeed();
  if (options.only !== 'speed') compareMemory();
}
