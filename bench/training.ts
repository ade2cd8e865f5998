/**
 * Host time of a batch, and steps a second: `node bench/training.ts RECIPE CACHE [DEVICE [STEPS [PRECISION]]]` for a
 * transformer's recipe and its latent cache, with the CPU time of a step. Without a device only batches are made, in this
 * thread.
 */

import { type DeviceName, openExecutor } from '../src/app.ts';
import { disposeAll, type Executor, type Precision, uploadTree } from '../src/executors/executor.ts';
import { at } from '../src/tensor/shape.ts';
import type { Batch } from '../src/training/batch.ts';
import { BatchMemory, placeBatch } from '../src/training/batch-memory.ts';
import { openBatchPool } from '../src/training/batch-pool.ts';
import { DeviceState } from '../src/training/device-state.ts';
import { readTransformerRecipe } from '../src/training/recipe.ts';
import { initialTrainingState } from '../src/training/step.ts';
import { openTransformerData } from '../src/training/transformer-data.ts';
import {
  transformerBatchMaker,
  transformerConfigOf,
  transformerPlanner,
  transformerTraining,
} from '../src/training/transformer-task.ts';

const [file = 'recipes/micro/transformer.json', cache = 'latents', device, steps = '5', precision] =
  process.argv.slice(2);
const recipe = await readTransformerRecipe(file);
await using data = await openTransformerData(cache, recipe);
const config = transformerConfigOf(recipe, data.latent, file);
const planner = transformerPlanner(config, recipe, data.cache);
const make = transformerBatchMaker(config, recipe, data.cache);

const count = Number(steps);
let position = 0;
const plans = Array.from({ length: count + 1 }, (_, i) => {
  const next = planner.plan(i + 1, position);
  position = next.position;
  return next.plan;
});
const batches = [];
const warmUp = 40;
for (let i = 0; i < warmUp; i++) await make(at(plans, i % plans.length));
for (const [i, plan] of plans.entries()) {
  const begin = performance.now();
  const batch = await make(plan);
  batches.push(batch);
  if (i > 0) console.log(`batch ${i}: ${(performance.now() - begin).toFixed(1)} ms,`, batch.facts);
}
const planBegin = performance.now();
for (let i = 0; i < 20; i++) planner.plan(i + 1, position);
console.log(`planning: ${((performance.now() - planBegin) / 20).toFixed(2)} ms a batch`);

/** CPU time of this thread for each batch that comes from a pool, by whether batches are recycled. */
async function mainThread(pin: Executor['pin']): Promise<number> {
  await using pool = await openBatchPool({ kind: 'transformer', config, recipe, cache }, 2, pin);
  const [warm, measured] = [50, 200];
  const coming: Promise<Batch>[] = [];
  let cpu = process.threadCpuUsage();
  let next = { step: 0, position: 0 };
  for (let i = 0; i < warm + measured; i++) {
    if (i === warm) cpu = process.threadCpuUsage();
    while (coming.length < pool.ahead) {
      const planned = planner.plan(next.step + 1, next.position);
      next = { step: next.step + 1, position: planned.position };
      coming.push(pool.make(planned.plan));
    }
    const batch = await coming.shift();
    if (batch !== undefined) pool.recycle(batch);
  }
  const { user, system } = process.threadCpuUsage(cpu);
  await Promise.all(coming);
  return (user + system) / 1000 / measured;
}
const notPinned = { [Symbol.dispose]: () => undefined };
console.log(
  `main thread, batches sent: ${(await mainThread(undefined)).toFixed(2)} ms a batch before uploading`,
);
console.log(`main thread, memory shared: ${(await mainThread(() => notPinned)).toFixed(2)} ms a batch`);

if (device !== undefined) {
  await using executor = await openExecutor(
    device as DeviceName,
    precision === undefined ? {} : { precision: precision as Precision },
  );
  const model = transformerTraining(config);
  const initial = initialTrainingState(model, recipe.seed);
  using state = await DeviceState.open(executor, model, recipe, planner.variants, initial);
  let begin = performance.now();
  let cpu = process.cpuUsage();
  for (const [i, batch] of batches.entries()) {
    const { loss } = await (await state.start(i + 1, batch)).read();
    if (i === 0) [begin, cpu] = [performance.now(), process.cpuUsage()];
    else console.log(`step ${i}: loss ${loss?.toFixed(4)}`);
  }
  const { user, system } = process.cpuUsage(cpu);
  console.log(`${((user + system) / 1e6 / count).toFixed(3)} s of CPU time a step`);
  console.log(
    `${((1000 * count) / (performance.now() - begin)).toFixed(3)} steps a second on ${executor.name}`,
  );
  const upload = async (given: readonly Batch[], from: string) => {
    const uploadBegin = performance.now();
    for (const { values } of given) disposeAll(uploadTree(executor, values as object));
    console.log(
      `upload ${from}: ${((performance.now() - uploadBegin) / given.length).toFixed(2)} ms of this thread a batch`,
    );
    await executor.download(state.buffers.alive);
  };
  await upload(batches, 'copied');
  if (executor.pin !== undefined) {
    using memory = new BatchMemory(executor.pin.bind(executor));
    const shared = batches.map((batch) => {
      const given = memory.take();
      return memory.open(placeBatch(batch, given), given);
    });
    await upload(shared, 'from shared memory');
    await upload(shared, 'from shared memory, again');
  }
}
