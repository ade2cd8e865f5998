/**
 * `node bench/gpu/profile.ts CASE [precision] [rows]`: milliseconds of each kernel and library call of a case of
 * `compare.ts` on this machine's GPU, given its weights as there, the longest first. What is made of fixed weights once is not
 * among them. Default: bf16, 40 rows.
 */
import type { Precision } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { type CaseName, cases } from './cases.ts';
import { reportSteps } from './step-times.ts';
import { makeWork } from './work.ts';

const [name = 'step128', precision = 'bf16', rows = '40'] = process.argv.slice(2);
if (!(name in cases)) throw new Error(`${name}: one of ${Object.keys(cases).join(', ')}`);
const isNarrow = precision === 'bf16' || precision === 'fp8';
const work = makeWork(cases[name as CaseName], { weights: isNarrow ? 'bf16' : 'f32' });

await using executor = await openNvidiaExecutor({ precision: precision as Precision });
const executable = await executor.compile(work.graph, { donate: work.donate, fixed: work.fixed });
const inputs = work.values.map((tensor) => executor.upload(tensor));
await executor.run(executable, inputs);
executor.device.synchronize();
console.log(`${name}, ${executor.name} on ${executor.device.name}`);
const fallback = await executor.fallback();
if (fallback !== undefined) console.log(fallback);
reportSteps(executor.profile(executable), Number(rows));
