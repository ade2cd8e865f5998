/**
 * `node bench/gpu/training-step.ts [autoencoder|transformer] [recipe] [rows] [precision] [variants]`: milliseconds of a
 * training step on this machine's GPU, first of whole steps back to back, then of each of its kernels and library calls, the
 * longest first. Batches are of random numbers, so that nothing but the step is measured. Default: the transformer of micro,
 * 40 rows, tf32. An autoencoder has a variant for each size of clip: the first is measured, with `all` every one.
 */

import type { DeviceBuffer, Precision } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { randomSteps } from './random-step.ts';

const [
  kind = 'transformer',
  file = `recipes/micro/${kind}.json`,
  shown = '40',
  precision = 'tf32',
  variants = 'first',
] = process.argv.slice(2);
const steps = 20;

await using executor = await openNvidiaExecutor({ precision: precision as Precision });
console.log(`${executor.name} on ${executor.device.name}`);
for (const { variant, traced, batch, numbers, ...initial } of await randomSteps(
  kind as 'transformer',
  file,
)) {
  const start = performance.now();
  const executable = await executor.compile(traced.graph, { donate: traced.donate });
  console.log(`${variant}: compiled in ${((performance.now() - start) / 1000).toFixed(2)} s`);
  const given = [...batch, numbers(1)].map((tensor) => executor.upload(tensor));
  let state = initial.state.map((tensor) => executor.upload(tensor));
  const run = async () => {
    const [metrics, ...next] = (await executor.run(executable, [...state, ...given])) as DeviceBuffer[];
    state = next;
    metrics?.[Symbol.dispose]();
  };
  for (let i = 0; i < 3; i++) await run();
  executor.device.synchronize();
  const begin = performance.now();
  for (let i = 0; i < steps; i++) await run();
  executor.device.synchronize();
  console.log(`${variant}: ${((performance.now() - begin) / steps).toFixed(2)} ms a step`);
  const { free, total } = executor.device.memoryInfo();
  console.log(`${((total - free) / 2 ** 30).toFixed(2)} GiB of the GPU in use`);
  report(executor.profile(executable));
  for (const buffer of [...state, ...given]) buffer[Symbol.dispose]();
  executable[Symbol.dispose]();
  if (variants !== 'all') break;
}

function report(times: readonly { readonly name: string; readonly milliseconds: number }[]): void {
  const groups = new Map<string, { count: number; total: number }>();
  for (const { name, milliseconds } of times) {
    const group = groups.get(name) ?? { count: 0, total: 0 };
    groups.set(name, { count: group.count + 1, total: group.total + milliseconds });
  }
  const total = times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  console.log(`${total.toFixed(2)} ms in ${times.length} launches one by one`);
  const rows = [...groups].sort(([, a], [, b]) => b.total - a.total).slice(0, Number(shown));
  for (const [name, { count, total: sum }] of rows)
    console.log(`${sum.toFixed(3).padStart(8)} ms ${String(count).padStart(4)} x ${name}`);
}
