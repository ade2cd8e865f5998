/**
 * `node bench/gpu/replay.ts [CASE] [precision] [seconds]`: what keeps the host busy when a case of `compare.ts` is run as a
 * recorded graph. First host times of whole runs; then what the graph consists of, as it is recorded and as it is launched,
 * with kernels in the place of memsets, and times of both; then of straight lines: of parts of its nodes, of plain kernels
 * with another thing among them, and of plain kernels with each of its kernels among them. Lines are written as they are
 * measured, kernels of libraries without the memsets before them last: they may wait for ever. Default: small, bf16, 85 seconds.
 */
import type { Executable, Precision } from '../../src/executors/executor.ts';
import type { Kernel } from '../../src/executors/nvidia/kernel.ts';
import { KernelCache, type Launch } from '../../src/executors/nvidia/kernel-cache.ts';
import { fillKernel, replaceMemsets } from '../../src/executors/nvidia/memsets.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { namedKernel } from '../../src/executors/nvidia/plain/named-kernel.ts';
import { at } from '../../src/tensor/shape.ts';
import { type CaseName, cases } from './cases.ts';
import {
  type Edge,
  type GraphNode,
  GraphWorkshop,
  type KernelNode,
  type LaunchTimes,
  type Origin,
} from './launch-graph.ts';
import { makeWork } from './work.ts';

const [name = 'small', precision = 'bf16', limit = '85'] = process.argv.slice(2);
if (!(name in cases)) throw new Error(`${name}: one of ${Object.keys(cases).join(', ')}`);
const begin = performance.now();
const origins: readonly Origin[] = ['ours', 'cuBLASLt', 'cuDNN', 'others'];

await using executor = await openNvidiaExecutor({ precision: precision as Precision });
const { device } = executor;
const kernels = new KernelCache(device, '');
const workshop = new GraphWorkshop(device);
console.log(`${name}, ${executor.name} on ${device.name}, ${device.driverVersion}`);

const plain = plainKernel(1);
await kernels.prepare([plain, fillKernel]);
const buffer = device.memory.allocate(1 << 20);
const executable = await measureRuns();
// Nodes point into the graph that they are of, so those of recorded graphs live until the process ends.
const recorded = executor.record(executable);
const nodes = workshop.nodesOf(recorded);
describe(nodes, workshop.edgesOf(recorded));
const launched = asLaunched(executor.record(executable));
describe(workshop.nodesOf(launched), workshop.edgesOf(launched));
console.log('\nAs it is recorded, as runs launch it, and as straight lines of some of its nodes:');
write('as recorded', nodes.length, workshop.time(executor.record(executable), 2));
write('kernels in the place of memsets', nodes.length, workshop.time(launched, 2));
ownParts(nodes);
await synthetic();
suspects(nodes);
otherParts(nodes);

/** Times whole runs, and gives what ran. */
async function measureRuns(): Promise<Executable> {
  const work = makeWork(cases[name as CaseName]);
  const executable = await executor.compile(work.graph, { donate: work.donate, fixed: work.fixed });
  const inputs = work.values.map((tensor) => executor.upload(tensor));
  const run = async () => {
    const outputs = await executor.run(executable, inputs);
    work.donate.forEach((index, output) => {
      inputs[index] = at(outputs, output);
    });
    for (const output of outputs.slice(work.donate.length)) output[Symbol.dispose]();
  };
  for (let i = 0; i < 4; i++) await run();
  device.synchronize();
  console.log(`ready after ${elapsed()} s, ${inputs.length} inputs, ${work.donate.length} of them donated`);
  const times: number[] = [];
  for (let i = 0; i < 20 && elapsed() < 30; i++) {
    const start = performance.now();
    const running = run();
    times.push(1000 * (performance.now() - start));
    await running;
    device.synchronize();
  }
  console.log(`whole runs, the GPU idle before: ${times.map((time) => time.toFixed(0)).join(' ')} us`);
  return executable;
}

/** What a graph consists of. */
function describe(all: readonly GraphNode[], edges: readonly Edge[]): void {
  const count = (kind: string) => all.filter((node) => node.kind === kind).length;
  const kinds = [...new Set(all.map(({ kind }) => kind))];
  console.log(`\n${all.length} nodes: ${kinds.map((kind) => `${count(kind)} ${kind}`).join(', ')}`);
  const [before, after] = [degrees(edges, 'to'), degrees(edges, 'from')];
  const having = (degree: ReadonlyMap<bigint, number>, test: (count: number) => boolean) =>
    all.filter(({ handle }) => test(degree.get(handle) ?? 0)).length;
  console.log(
    `${edges.length} edges, ${edges.filter(({ isProgrammatic }) => isProgrammatic).length} programmatic; ` +
      `${having(before, (n) => n === 0)} roots, ${having(before, (n) => n > 1)} joins, ` +
      `${having(after, (n) => n > 1)} forks, ${having(after, (n) => n === 0)} leaves`,
  );
  for (const origin of origins) describeKernels(origin, kernelsIn(all, origin));
  const places = Map.groupBy(
    all.flatMap((node, place) => (node.kind === 'kernel' ? [] : [{ node, place }])),
    ({ node, place }) => {
      const next = all.slice(place + 1).find(({ kind }) => kind === 'kernel');
      const bytes = 'bytes' in node ? ` of ${node.bytes} bytes` : '';
      return `${node.kind}${bytes} before ${next?.kind === 'kernel' ? next.name.slice(0, 60) : 'nothing'}`;
    },
  );
  for (const [what, { length }] of [...places].sort(([, a], [, b]) => b.length - a.length).slice(0, 20))
    console.log(`  ${String(length).padStart(4)} x ${what}`);
}

function describeKernels(origin: Origin, given: readonly KernelNode[]): void {
  if (given.length === 0) return;
  const bytes = given.map(({ parameterBytes = 0 }) => parameterBytes);
  const having = (test: (node: KernelNode) => boolean) => given.filter(test).length;
  console.log(
    `  ${origin}: ${given.length} kernels of ${new Set(given.map((node) => node.name)).size} functions, ` +
      `${bytes.reduce((sum, one) => sum + one, 0)} bytes of parameters, at most ${Math.max(...bytes)}; ` +
      `${having(({ cluster }) => cluster > 1)} in clusters, ${having(({ isCooperative }) => isCooperative)} cooperative, ` +
      `${having(({ sharedBytes }) => sharedBytes > 48 << 10)} beyond 48 KiB of shared memory, ` +
      `${having(({ localBytes }) => localBytes > 0)} with local memory; ` +
      `priorities ${[...new Set(given.map(({ priority }) => priority))].join(', ')}`,
  );
}

function degrees(edges: readonly Edge[], end: 'from' | 'to'): ReadonlyMap<bigint, number> {
  const counts = new Map<bigint, number>();
  for (const edge of edges) counts.set(edge[end], (counts.get(edge[end]) ?? 0) + 1);
  return counts;
}

/** Straight lines of plain kernels with other things among them. */
async function synthetic(): Promise<void> {
  console.log('\n1,000 plain kernels, and what is put in their middle:');
  const local = plainKernel(
    1,
    'volatile float x[1024]; for (int i = 0; i < 1024; i++) x[i] = p0[i]; p0[0] = x[1023 & (int)p0[1]];',
  );
  const shared = { ...plainKernel(2), sharedBytes: 100 << 10 };
  const many = plainKernel(400);
  const others = Array.from({ length: 16 }, (_, i) => plainKernel(1, `if (p0 == 0) p0[${i}] = 0;`));
  await kernels.prepare([local, shared, many, ...others]);
  const bound = (kernel: Kernel, count = 1) => kernels.bind(kernel, new Array<bigint>(count).fill(buffer));
  const line = recordedNodes(1000, bound(plain));
  const middle = (what: string, count: number, ...launches: readonly Launch[]) =>
    report(what, [
      ...line.slice(0, 500),
      ...recordedNodes(count, () => {
        for (const launch of launches) launch();
      }),
      ...line.slice(500),
    ]);
  const clear = () => device.clear(buffer, 64);
  report('nothing', line);
  middle('a memset of 64 bytes', 1, clear);
  middle('a memset of 1 MiB', 1, () => device.clear(buffer, 1 << 20));
  middle('a copy of 64 bytes', 1, () => device.copy(buffer, buffer + 4096n, 64));
  middle('100 memsets', 100, clear);
  middle('100 memsets, each with a kernel', 100, clear, bound(plain));
  middle('100 copies, each with a kernel', 100, () => device.copy(buffer, buffer + 4096n, 64), bound(plain));
  middle('a kernel of 3,200 bytes of parameters', 1, bound(many, 400));
  middle('100 of them', 100, bound(many, 400));
  middle('100 kernels with local memory', 100, bound(local));
  middle('100 kernels with 100 KiB of shared memory', 100, bound(shared, 2));
  middle('kernels of 16 modules', 1, ...others.map((kernel) => bound(kernel)));
  forked(bound(plain));
  report('a programmatic edge', line, new Set([500]));
  report('programmatic edges all along', line, new Set(line.keys()));
}

/** Plain kernels, one of them on another stream that is waited for. */
function forked(launch: Launch): void {
  const side = device.createSideStream();
  const [ready, done] = [device.createOrderingEvent(), device.createOrderingEvent()];
  const graph = device.recordGraph(() => {
    repeat(500, launch);
    device.record(ready);
    device.holdFor(ready, side);
    device.driver.check(device.driver.cuMemsetD8Async(buffer, 0, 64, side), 'clear memory');
    device.record(done, side);
    launch();
    device.holdFor(done);
    repeat(499, launch);
  });
  write('a memset beside a kernel', 1001, workshop.time(graph, 1));
  for (const event of [ready, done]) device.driver.cuEventDestroy_v2(event);
  device.driver.cuStreamDestroy_v2(side);
}

/** Which of the recorded nodes slow a line of plain kernels down: each function once, a memset, a copy. */
function suspects(all: readonly GraphNode[]): void {
  console.log('\n500 plain kernels, and one of what was recorded in their middle:');
  const line = recordedNodes(500, kernels.bind(plain, [buffer]));
  const distinct = Map.groupBy(all, (node) => (node.kind === 'kernel' ? node.name : `a ${node.kind}`));
  for (const [what, alike] of distinct) {
    if (isLate(what)) return;
    const graph = workshop.straight([...line.slice(0, 250), at(alike, 0), ...line.slice(250)]);
    write(`${alike.length} x ${what}`, line.length + 1, workshop.time(graph, 0.02));
  }
}

/** A recorded graph, changed as runs change it before its first launch. */
function asLaunched(graph: bigint): bigint {
  const start = performance.now();
  replaceMemsets(device.driver, graph, kernels.functionOf(fillKernel));
  console.log(`\nmemsets replaced in ${(performance.now() - start).toFixed(1)} ms`);
  return graph;
}

/** Our kernels, which end whatever their operands are. */
function ownParts(all: readonly GraphNode[]): void {
  const own = kernelsIn(all, 'ours');
  report('our kernels', own);
  for (const bytes of [64, 128, 256, 1024]) {
    const below = own.filter(({ parameterBytes = 0 }) => parameterBytes < bytes);
    report(`ours, parameters below ${bytes} bytes`, below);
  }
}

/** Kernels without the memsets between them. */
function otherParts(all: readonly GraphNode[]): void {
  console.log('\nStraight lines of its kernels alone:');
  const every = all.filter((node) => node.kind === 'kernel');
  report('all kernels', every);
  report(
    'all kernels but those in clusters',
    every.filter(({ cluster }) => cluster <= 1),
  );
  for (const origin of origins.slice(1)) report(`kernels of ${origin}`, kernelsIn(all, origin));
}

/** A kernel that does nothing much. @param count of parameters, all addresses. */
function plainKernel(count: number, body = ''): Kernel {
  const parameters = Array.from({ length: count }, (_, i) => `float* p${i}`);
  return namedKernel('plain', `(${parameters.join(', ')}) { ${body} }`, [1, 1, 1], [32, 1, 1]);
}

/** What some calls of `launch` launch, as nodes. */
function recordedNodes(count: number, launch: Launch): readonly GraphNode[] {
  return workshop.nodesOf(device.recordGraph(() => repeat(count, launch)));
}

function repeat(count: number, launch: Launch): void {
  for (let i = 0; i < count; i++) launch();
}

function kernelsIn(all: readonly GraphNode[], origin: Origin): readonly KernelNode[] {
  return all.filter((node) => node.kind === 'kernel').filter((node) => node.origin === origin);
}

function report(what: string, given: readonly GraphNode[], programmatic?: ReadonlySet<number>): void {
  if (given.length === 0 || isLate(what)) return;
  write(what, given.length, workshop.time(workshop.straight(given, programmatic), 1));
}

function write(what: string, count: number, { idle, queued, milliseconds, rounds }: LaunchTimes): void {
  const times = [idle, queued].map((time) => `${time.toFixed(1).padStart(8)} us`).join(', then ');
  const gpu = `GPU ${milliseconds.toFixed(3).padStart(8)} ms`;
  console.log(
    `${times}, ${gpu}  ${String(count).padStart(5)} nodes: ${what.slice(0, 90)} (${rounds} rounds)`,
  );
}

function isLate(what: string): boolean {
  const late = elapsed() > Number(limit);
  if (late) console.log(`${what.slice(0, 60)}: left out after ${elapsed()} s`);
  return late;
}

function elapsed(): number {
  return Math.round((performance.now() - begin) / 1000);
}
