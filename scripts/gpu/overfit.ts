/**
 * `node scripts/gpu/overfit.ts [precision] [steps]`: the overfitting test of `test/training/memorise.test.ts` on this
 * machine's GPU with the same recipe, default `tf32` and all 300 steps: the loss has to fall to a hundredth. Goes on
 * from its own state at half time as well, and says how far the second way is from the first: not at all, but for the
 * sums of the embedding's gradient, whose order is the GPU's choice.
 */
import { parameterCount } from '../../src/nn/parameters.ts';
import { Memorise, overfitting, specsOf } from '../../test/training/memorise.ts';
import { openForScript } from './open.ts';

const [precision = 'tf32', given = String(overfitting.schedule.steps)] = process.argv.slice(2);
const steps = Number(given);
const half = steps >> 1;

await using executor = await openForScript(precision);
console.log(`${(parameterCount(specsOf(overfitting)) / 1e6).toFixed(2)}M parameters, ${steps} steps`);

const start = performance.now();
await using training = await Memorise.start(executor, overfitting);
const losses: number[] = [];
for (let step = 1; step <= half; step++) losses.push(await training.step(step));
const state = await training.save();
for (let step = half + 1; step <= steps; step++) losses.push(await training.step(step));
const seconds = (performance.now() - start) / 1000;

await using resumed = await Memorise.start(executor, overfitting, state);
const again: number[] = [];
for (let step = half + 1; step <= steps; step++) again.push(await resumed.step(step));

const [first = Number.NaN, last = Number.NaN] = [losses[0], losses.at(-1)];
const furthest = Math.max(...again.map((loss, i) => Math.abs(loss / (losses[half + i] ?? Number.NaN) - 1)));
const shown = [1, 20, 50, 100, 150, 200, 250, 300].filter((step) => step <= steps);
console.log(shown.map((step) => `${step}: ${losses[step - 1]?.toPrecision(4)}`).join(', '));
console.log(
  `loss falls ${(first / last).toFixed(1)} times in ${seconds.toFixed(1)} s; gone on from half time, losses are within ${furthest.toExponential(1)}`,
);
const passed = first / last > 100;
console.log(passed ? 'passed' : `failed: the loss is to fall 100 times`);
process.exitCode = passed ? 0 : 1;
