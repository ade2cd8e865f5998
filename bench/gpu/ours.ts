/**
 * Our side of `compare.ts`, a process of its own that is told what to do in lines of JSON and answers in lines of JSON,
 * as `peer.py` does: `prepare` traces, compiles and uploads a case, `run` runs it some times, `finish` says what it took.
 */
import { createInterface } from 'node:readline';
import { type DeviceName, openExecutor } from '../../src/app.ts';
import type { DeviceBuffer, Executable, Executor, Precision } from '../../src/executors/executor.ts';
import type { NvidiaExecutor } from '../../src/executors/nvidia/nvidia-executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { at } from '../../src/tensor/shape.ts';
import type { Answers, Ask, OurSettings, PrepareAsk } from './protocol.ts';
import { makeWork, type Work } from './work.ts';

/** Runs before the first that counts: the first launches step by step, the second records the graph. */
const warmUps = 3;
/** Runs, each waited for, over which host time is measured. */
const hostRuns = 5;

/** A case on a device, ready to run. */
class Prepared {
  private readonly executor: Executor;
  private readonly gpu: NvidiaExecutor | undefined;
  private readonly executable: Executable;
  private readonly donate: readonly number[];
  private readonly inputs: DeviceBuffer[];

  constructor(executor: Executor, gpu: NvidiaExecutor | undefined, executable: Executable, work: Work) {
    this.executor = executor;
    this.gpu = gpu;
    this.executable = executable;
    this.donate = work.donate;
    this.inputs = work.values.map((tensor) => executor.upload(tensor));
  }

  /** Queues one run; donated inputs become what it made of them. */
  async queue(): Promise<void> {
    const outputs = await this.executor.run(this.executable, this.inputs);
    this.donate.forEach((index, output) => {
      this.inputs[index] = at(outputs, output);
    });
    for (const output of outputs.slice(this.donate.length)) output[Symbol.dispose]();
  }

  /** Executors other than the GPU's are done when a run is. */
  wait(): void {
    this.gpu?.device.synchronize();
  }

  async run(count: number): Promise<Answers['run']> {
    this.wait();
    const start = performance.now();
    for (let i = 0; i < count; i++) await this.queue();
    this.wait();
    return { milliseconds: (performance.now() - start) / count };
  }

  /** Median microseconds until a run is queued, when nothing else is. */
  async hostMicroseconds(): Promise<number> {
    const times: number[] = [];
    for (let i = 0; i < hostRuns; i++) {
      this.wait();
      const start = performance.now();
      await this.queue();
      times.push(1000 * (performance.now() - start));
    }
    this.wait();
    return times.sort((a, b) => a - b)[hostRuns >> 1] ?? Number.NaN;
  }
}

let prepared: Prepared | undefined;

async function prepare({ case: given, settings }: PrepareAsk): Promise<Answers['prepare']> {
  const { device, precision, ...how } = settings as OurSettings;
  const { executor, gpu } = await open(device, precision);
  const free = gpu?.device.memoryInfo().free ?? 0;
  const [traceStart, work] = [performance.now(), makeWork(given, how)];
  const start = performance.now();
  const executable = await executor.compile(work.graph, { donate: work.donate, fixed: work.fixed });
  const compileSeconds = (performance.now() - start) / 1000;
  prepared = new Prepared(executor, gpu, executable, work);
  for (let i = 0; i < warmUps; i++) await prepared.queue();
  prepared.wait();
  const fallback = await executor.fallback?.();
  if (fallback !== undefined) console.error(`  ours ${fallback}`);
  return {
    device: gpu?.device.name ?? executor.name,
    compileSeconds,
    traceSeconds: (start - traceStart) / 1000,
    readySeconds: (performance.now() - traceStart) / 1000,
    parameters: work.parameters,
    // Nothing that it took is given back before the end, so this is the most that it needs.
    memoryBytes: free - (gpu?.device.memoryInfo().free ?? 0),
  };
}

async function open(
  device: string,
  precision: Precision,
): Promise<{ executor: Executor; gpu: NvidiaExecutor | undefined }> {
  if (device !== 'nvidia') return { executor: await openExecutor(device as DeviceName), gpu: undefined };
  const gpu = await openNvidiaExecutor({ precision });
  return { executor: gpu, gpu };
}

async function answer(ask: Ask): Promise<Answers[Ask['do']]> {
  if (ask.do === 'prepare') return await prepare(ask);
  if (prepared === undefined) throw new Error(`${ask.do}: nothing is prepared`);
  if (ask.do === 'run') return await prepared.run(ask.count);
  return { hostMicroseconds: await prepared.hostMicroseconds() };
}

for await (const line of createInterface({ input: process.stdin })) {
  const result = await answer(JSON.parse(line) as Ask).catch((error: unknown) => ({
    error: error instanceof Error ? (error.stack ?? error.message) : String(error),
  }));
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
process.exit();
