/**
 * `node bench/gpu/fp8-attention.ts [QUERIESxKEYSxHEADSxSIZE ..]`: milliseconds of attention alone on this machine's GPU, in
 * bf16 and with f8e4m3, on random values; conversions on the way there are not counted. Default: wan's, the same with
 * keys that fill tiles of 128, and heads of 64.
 */
import type { Precision } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { attention } from '../../src/tensor/functions.ts';
import { fromFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount, type Shape } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';

const given = process.argv.slice(2);
const standard = ['32760x32760x12x128', '32760x32640x12x128', '32768x32768x12x128', '16384x16384x18x64'];
for (const text of given.length > 0 ? given : standard) {
  const [queries = 0, keys = 0, heads = 0, size = 0] = text.split('x').map(Number);
  const operations = 4 * queries * keys * heads * size;
  const times: string[] = [];
  for (const precision of ['bf16', 'fp8'] as const) {
    const milliseconds = await timeOf(precision, [1, queries, heads, size], [1, keys, heads, size]).catch(
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    times.push(
      typeof milliseconds === 'string'
        ? `${precision}: ${milliseconds}`
        : `${precision} ${milliseconds.toFixed(3)} ms, ${(operations / milliseconds / 1e9).toFixed(0)} TFLOP/s`,
    );
  }
  console.log(`${text}: ${times.join('; ')}`);
}

async function timeOf(precision: Precision, q: Shape, kv: Shape): Promise<number> {
  const types = [q, kv, kv].map((shape) => ({ shape, dtype: 'f32' as const }));
  const [first, second, third] = types as [(typeof types)[0], (typeof types)[0], (typeof types)[0]];
  const { graph } = trace('attention', (a, b, c) => [attention(a, b, c)], first, second, third);
  await using executor = await openNvidiaExecutor({ precision });
  const executable = await executor.compile(graph);
  const inputs = types.map(({ shape }, index) => executor.upload(random(shape, index)));
  await executor.run(executable, inputs);
  const fallback = await executor.fallback();
  if (fallback !== undefined) throw new Error(fallback);
  const steps = executor.profile(executable).filter(({ name }) => name.startsWith('attention:'));
  return steps.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
}

function random(shape: Shape, index: number) {
  const period = 1_048_573;
  const noise = normal(keyFromSeed(index), period);
  const values = new Float32Array(elementCount(shape));
  for (let start = 0; start < values.length; start += period)
    values.set(noise.subarray(0, values.length - start), start);
  return fromFloat32('f32', shape, values);
}
