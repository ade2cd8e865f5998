/**
 * Billions of operations a second of CPU time in products of a training step, in float32 and with operands rounded to
 * bfloat16, taking turns: `node bench/products.ts [ROWS [ROUNDS]]`, of linear layers over so many rows (default 4680), one
 * thread. The best of all rounds (default 7) is told; pin it to a core with `taskset -c 0`.
 */

import type { DeviceBuffer, Executable } from '../src/executors/executor.ts';
import { openOnnxExecutor } from '../src/executors/onnx/open-node.ts';
import { keyFromSeed, normal } from '../src/random/philox.ts';
import { matmul } from '../src/tensor/functions.ts';
import { fromFloat32 } from '../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../src/tensor/shape.ts';
import type { Graph } from '../src/tensor/tensor.ts';
import { trace } from '../src/tensor/trace.ts';

const [rows = 4680, rounds = 7] = process.argv.slice(2).map(Number);
const layers = [
  [256, 768],
  [256, 256],
  [256, 1216],
  [608, 256],
  [256, 1536],
] as const;
const repeats = 4;
const type = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });

/** The products of a layer: its result, and the gradients of its input and of its weight. */
function productsOf(inputs: number, outputs: number): Readonly<Record<string, Graph>> {
  const [x, w, dy] = [type(rows, inputs), type(outputs, inputs), type(rows, outputs)];
  const of = (a: TensorType, b: TensorType, transposeA: boolean, transposeB: boolean) =>
    trace('product', (left, right) => [matmul(left, right, { transposeA, transposeB })], a, b).graph;
  return {
    result: of(x, w, false, true),
    'dx = dy w': of(dy, w, false, false),
    'dw = dyT x': of(dy, x, true, false),
  };
}

const executors = {
  fp32: openOnnxExecutor({ threads: 1 }),
  bf16: openOnnxExecutor({ threads: 1, precision: 'bf16' }),
} as const;
const precisions = ['fp32', 'bf16'] as const;

/** Microseconds of CPU time of one run. */
async function timeOf(executable: Executable, inputs: readonly DeviceBuffer[], precision: 'fp32' | 'bf16') {
  const before = process.cpuUsage();
  for (let i = 0; i < repeats; i++) {
    const outputs = await executors[precision].run(executable, inputs);
    for (const output of outputs) output[Symbol.dispose]();
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / repeats;
}

for (const [inputs, outputs] of layers) {
  for (const [name, graph] of Object.entries(productsOf(inputs, outputs))) {
    const values = graph.inputs.map(({ shape }, i) =>
      fromFloat32('f32', shape, normal(keyFromSeed(i), elementCount(shape))),
    );
    const best = { fp32: Number.POSITIVE_INFINITY, bf16: Number.POSITIVE_INFINITY };
    const ready = await Promise.all(
      precisions.map(async (precision) => ({
        precision,
        executable: await executors[precision].compile(graph),
        buffers: values.map((value) => executors[precision].upload(value)),
      })),
    );
    for (let round = 0; round <= rounds; round++)
      for (const { precision, executable, buffers } of ready) {
        const time = await timeOf(executable, buffers, precision);
        if (round > 0) best[precision] = Math.min(best[precision], time);
      }
    const speed = (precision: 'fp32' | 'bf16') =>
      ((2 * rows * inputs * outputs) / (1000 * best[precision])).toFixed(0);
    console.log(
      `${inputs} -> ${outputs} ${name.padEnd(10)} fp32 ${speed('fp32')}, bf16 ${speed('bf16')} GFLOP/s, time ${(best.bf16 / best.fp32).toFixed(2)}`,
    );
    for (const { executable, buffers } of ready)
      for (const held of [executable, ...buffers]) held[Symbol.dispose]();
  }
}
for (const executor of Object.values(executors)) await executor[Symbol.asyncDispose]();
