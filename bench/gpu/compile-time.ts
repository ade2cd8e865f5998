/**
 * `node bench/gpu/compile-time.ts [case] [precision] [rows]`: seconds to trace and to compile a case of `cases.ts` in a process that
 * compiled nothing before, and the functions of ours in which most of that passed, those that they call included. Run it twice: the
 * first run fills the caches on disk. Default: step64, bf16, 30 rows.
 */

import { type Profiler, Session } from 'node:inspector/promises';
import type { Precision } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { type CaseName, cases } from './cases.ts';
import { makeWork } from './work.ts';

const [name = 'step64', precision = 'bf16', rows = '30'] = process.argv.slice(2);
const opening = performance.now();
await using executor = await openNvidiaExecutor({ precision: precision as Precision });
const tracing = performance.now();
const { graph, donate, fixed } = makeWork(cases[name as CaseName]);
using session = started();
await session.profiler.post('Profiler.enable');
await session.profiler.post('Profiler.setSamplingInterval', { interval: 500 });
await session.profiler.post('Profiler.start');
const start = performance.now();
await executor.compile(graph, { donate, fixed });
const end = performance.now();
const { profile } = await session.profiler.post('Profiler.stop');
const seconds = (milliseconds: number) => `${(milliseconds / 1000).toFixed(2)} s`;
console.log(
  `${name}, ${precision}: opened in ${seconds(tracing - opening)}, traced and values drawn in ${seconds(start - tracing)}, ` +
    `compiled in ${seconds(end - start)} (the profiler included)`,
);
for (const [place, microseconds] of [...timesOf(profile)]
  .sort(([, a], [, b]) => b - a)
  .slice(0, Number(rows)))
  console.log(`${seconds(microseconds / 1000).padStart(8)} ${place}`);

function started() {
  const profiler = new Session();
  profiler.connect();
  return { profiler, [Symbol.dispose]: () => profiler.disconnect() };
}

/** Microseconds in each function of `src/` and in the garbage collector, each moment once for each function that is under way. */
function timesOf({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): ReadonlyMap<string, number> {
  const own = new Map<number, number>();
  for (const [index, id] of samples.entries()) own.set(id, (own.get(id) ?? 0) + (timeDeltas[index] ?? 0));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const places = new Map(nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]));
  const times = new Map<string, number>();
  for (const [id, time] of own) {
    const under = new Set<string>();
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const place = places.get(at);
      if (place !== undefined) under.add(place);
    }
    for (const place of under) times.set(place, (times.get(place) ?? 0) + time);
  }
  return times;
}

function placeOf({ functionName, url }: Profiler.ProfileNode['callFrame']): string | undefined {
  if (functionName === '(garbage collector)') return functionName;
  const [, file] = /\/(?:src|dist)\/(.*)$/.exec(url) ?? [];
  return file === undefined || functionName === '' ? undefined : `${functionName} (${file})`;
}
