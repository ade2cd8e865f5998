/**
 * `node scripts/gpu/precisions.ts [autoencoder|transformer] [recipe] [steps] [precision or device ...]`: trains on one batch
 * of random numbers, from the same weights, once in each precision, and prints loss and gradient norm of some steps beside
 * each other, then how far weights moved and how far apart those of the first and the others are. Default: micro's
 * transformer, 300 steps, fp32 tf32 bf16. A device such as `cpu` runs on that, for a try without a GPU.
 */

import { type RandomStep, randomSteps } from '../../bench/gpu/random-step.ts';
import { type DeviceName, devices, openExecutor } from '../../src/app.ts';
import type { DeviceBuffer, Executor, Precision } from '../../src/executors/executor.ts';
import { type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';

const [kind = 'transformer', file = `recipes/micro/${kind}.json`, count = '300', ...given] =
  process.argv.slice(2);
const names = given.length === 0 ? ['fp32', 'tf32', 'bf16'] : given;
const steps = Number(count);

const [work] = await randomSteps(kind as 'transformer', file);
if (work === undefined) throw new Error(`${file} has no batches`);
const runs: ({ readonly name: string } & Awaited<ReturnType<typeof trained>>)[] = [];
for (const name of names) {
  const isDevice = devices.some((device) => device === name);
  await using executor = await (isDevice
    ? openExecutor(name as DeviceName)
    : openExecutor('nvidia', { precision: name as Precision }));
  const begin = performance.now();
  runs.push({ name, ...(await trained(executor, work)) });
  console.log(`${executor.name}: ${((performance.now() - begin) / 1000).toFixed(1)} s`);
}

const first = runs[0];
const row = (cells: readonly (string | number)[]) => cells.map((cell) => String(cell).padStart(14)).join('');
console.log(row(['step', ...names.map((name) => `loss ${name}`), ...names.map((name) => `norm ${name}`)]));
for (const step of [1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000].filter((one) => one <= steps)) {
  const of = (metric: 0 | 1) => runs.map(({ metrics }) => metrics[step - 1]?.[metric]?.toPrecision(6) ?? '');
  console.log(row([step, ...of(0), ...of(1)]));
}
for (const { name, weights } of runs) {
  const before = work.state.slice(0, weights.length);
  console.log(
    `${name}: weights moved ${distance(weights, before).toExponential(3)}, ` +
      `${distance(weights, first?.weights ?? []).toExponential(3)} from those of ${first?.name}`,
  );
}

/** Metrics of each step, and the weights after the last. */
async function trained(executor: Executor, { traced, state, batch, numbers }: RandomStep) {
  using executable = await executor.compile(traced.graph, { donate: traced.donate });
  const inputs = batch.map((tensor) => executor.upload(tensor));
  let now = state.map((tensor) => executor.upload(tensor));
  const metrics: Float32Array[] = [];
  for (let step = 1; step <= steps; step++) {
    using own = executor.upload(numbers(step));
    const [row, ...next] = (await executor.run(executable, [...now, ...inputs, own])) as [
      DeviceBuffer,
      ...DeviceBuffer[],
    ];
    now = next;
    metrics.push(toFloat32(await executor.download(row)));
    row[Symbol.dispose]();
  }
  // A state is parameters, two moments, the average, and whether it is alive.
  const parameters = now.slice(0, (now.length - 1) / 4);
  const weights = await Promise.all(parameters.map((buffer) => executor.download(buffer)));
  for (const buffer of [...now, ...inputs]) buffer[Symbol.dispose]();
  return { metrics, weights };
}

/** Length of the difference of two lists of tensors. */
function distance(a: readonly HostTensor[], b: readonly HostTensor[]): number {
  let sum = 0;
  a.forEach((tensor, index) => {
    const other = b[index];
    if (other === undefined) return;
    const [x, y] = [toFloat32(tensor), toFloat32(other)];
    for (let i = 0; i < x.length; i++) sum += ((x[i] ?? 0) - (y[i] ?? 0)) ** 2;
  });
  return Math.sqrt(sum);
}
