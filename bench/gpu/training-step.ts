/**
 * `node bench/gpu/training-step.ts [autoencoder|transformer] [recipe] [rows] [precision] [variants]`: milliseconds of a
 * training step on this machine's GPU, first of whole steps back to back, then of each of its kernels and library calls, the
 * longest first. Batches are of random numbers, so that nothing but the step is measured. Default: the transformer of micro,
 * 40 rows, tf32. An autoencoder has a variant for each size of clip: the first is measured, with `all` every one.
 */

import type { DeviceBuffer, Precision } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { randomSteps } from './random-step.ts';
import { reportSteps } from './step-times.ts';

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
  reportSteps(executor.profile(executable), Number(shown));
  for (const buffer of [...state, ...given]) buffer[Symbol.dispose]();
  executable[Symbol.dispose]();
  if (variants !== 'all') break;
}
