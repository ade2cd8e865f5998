import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { UserError } from '../errors.ts';
import type { Executor } from '../executors/executor.ts';
import { at } from '../tensor/shape.ts';
import type { Batch, BatchMaker, BatchPlan } from './batch.ts';
import { type BatchJob, openBatchMaker } from './batch-job.ts';
import { BatchMemory, type BatchReply, type BatchRequest } from './batch-memory.ts';

/** Makes batches, in worker threads or here. Dispose it to end the threads. */
export interface BatchPool extends AsyncDisposable {
  readonly make: BatchMaker;
  /** Batches that are worth having under way at once. */
  readonly ahead: number;
  /** Takes a batch back once nothing reads it any more, for its memory to be used again. */
  recycle(batch: Batch): void;
}

/**
 * Opens a pool of `threads` threads; 0 makes batches in this thread, when they are asked for.
 *
 * Plans go to the threads in turn, so which thread makes a batch, and when, changes nothing in it.
 * @param pin of the executor that batches are uploaded to: then every batch is to be recycled.
 */
export async function openBatchPool(
  job: BatchJob,
  threads: number,
  pin?: Executor['pin'],
): Promise<BatchPool> {
  if (threads === 0) {
    const maker = await openBatchMaker(job);
    return { ...maker, ahead: 1, recycle: () => undefined };
  }
  const memory = pin === undefined ? undefined : new BatchMemory(pin);
  const lanes = Array.from({ length: threads }, () => new Lane(job, memory));
  let next = 0;
  return {
    make: (plan) => at(lanes, next++ % threads).make(plan),
    ahead: threads + 1,
    recycle: (batch) => memory?.recycle(batch),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(lanes.map((lane) => lane.close()));
      memory?.[Symbol.dispose]();
    },
  };
}

interface Waiting {
  readonly memory: SharedArrayBuffer | undefined;
  readonly resolve: (batch: Batch) => void;
  readonly reject: (error: Error) => void;
}

/** One thread: answers come in the order of the questions. */
class Lane {
  readonly #worker: Worker;
  readonly #waiting: Waiting[] = [];
  readonly #memory: BatchMemory | undefined;
  #failure: Error | undefined;

  constructor(job: BatchJob, memory: BatchMemory | undefined) {
    this.#memory = memory;
    // The worker is the source file in development and the built one in the package.
    const entry = new URL(`./batch-worker${extname(import.meta.url)}`, import.meta.url);
    this.#worker = new Worker(entry, { workerData: job });
    this.#worker.unref();
    this.#worker.on('message', (reply: BatchReply) => this.#answer(reply));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', (code) => this.#fail(new Error(`a batch thread ended with code ${code}`)));
  }

  make(plan: BatchPlan): Promise<Batch> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#worker.ref();
    const memory = this.#memory?.take();
    return new Promise<Batch>((resolve, reject) => {
      this.#waiting.push({ memory, resolve, reject });
      this.#worker.postMessage({ plan, memory } satisfies BatchRequest);
    }).finally(() => {
      if (this.#waiting.length === 0) this.#worker.unref();
    });
  }

  async close(): Promise<void> {
    this.#failure = new Error('the batch pool is closed');
    await this.#worker.terminate();
  }

  #answer(reply: BatchReply): void {
    const asked = this.#waiting.shift();
    if (asked === undefined) return;
    const isPlaced = this.#memory !== undefined && asked.memory !== undefined;
    asked.resolve(isPlaced ? this.#memory.open(reply, asked.memory) : (reply.batch as Batch));
  }

  #fail(error: unknown): void {
    const found = error instanceof Error ? error : new Error(String(error));
    // The class of an error is lost on its way between threads, its name is not.
    this.#failure ??= found.name === 'UserError' ? new UserError(found.message) : found;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}
