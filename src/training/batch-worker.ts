import { parentPort, workerData } from 'node:worker_threads';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { leaves } from '../tensor/tree.ts';
import { type BatchJob, openBatchMaker } from './batch-job.ts';
import { type BatchReply, type BatchRequest, placeBatch } from './batch-memory.ts';

/** Entry point of a thread that makes batches for `batch-pool.ts`: plans in, batches out, in order. */
const port = parentPort;
if (port === null) throw new Error('batch-worker.ts is started by openBatchPool, in a worker thread');
// Open as long as the thread lives, whose end closes the files.
const maker = openBatchMaker(workerData as BatchJob);

async function answer({ plan, memory }: BatchRequest): Promise<void> {
  const batch = await (await maker).make(plan);
  if (memory !== undefined) {
    port?.postMessage(placeBatch(batch, memory));
    return;
  }
  const buffers = (leaves(batch.values as object) as HostTensor[]).map(
    ({ data }) => data.buffer as ArrayBuffer,
  );
  port?.postMessage({ batch, memory } satisfies BatchReply, buffers);
}

let last: Promise<void> = Promise.resolve();
port.on('message', (request: BatchRequest) => {
  last = last.then(() => answer(request));
});
