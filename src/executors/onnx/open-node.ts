import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { HostConnection, HostReply } from './messages.ts';
import { OnnxExecutor } from './onnx-executor.ts';

/** Settings of {@link openOnnxExecutor}. */
export interface OnnxOptions {
  /** `cpu` (default) or `webgpu`, which needs a Vulkan, Metal or Direct3D adapter. */
  readonly device?: 'cpu' | 'webgpu';
  /** Threads of one operation. Default: as many as there are physical cores. */
  readonly threads?: number;
  /** Refuse models that the device cannot run whole, instead of running parts of them on the CPU. Default false. */
  readonly strict?: boolean;
  /** Most bytes of attention scores held at once, per layer. Default 16 MiB. */
  readonly scoreBytes?: number;
}

/**
 * Opens ONNX Runtime in Node, in a worker thread of its own, so that the event loop stays free. Dispose the executor to
 * end the thread; an idle one does not keep the process alive.
 */
export function openOnnxExecutor({
  device = 'cpu',
  threads = 0,
  strict = false,
  scoreBytes = 2 ** 24,
}: OnnxOptions = {}): OnnxExecutor {
  // The worker is the source file in development and the built one in the package.
  const entry = new URL(`./node-worker${extname(import.meta.url)}`, import.meta.url);
  // The worker's own heap holds names and numbers, a few megabytes. Told so, V8 collects its garbage early.
  const worker = new Worker(entry, {
    resourceLimits: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 4 },
  });
  worker.unref();
  return new OnnxExecutor(connectionTo(worker), { device, threads, strict, scoreBytes });
}

function connectionTo(worker: Worker): HostConnection {
  let closing = false;
  return {
    send: (message) => worker.postMessage(message),
    listen: (receive, fail) => {
      worker.on('message', (reply: HostReply) => receive(reply));
      worker.on('error', (error) => fail(error instanceof Error ? error : new Error(String(error))));
      worker.on('exit', (code) => fail(new Error(`the worker thread ended with code ${code}`)));
    },
    close: async () => {
      // An unreferenced worker would let the process end before it has.
      closing = true;
      worker.ref();
      await worker.terminate();
    },
    keepAlive: (alive) => {
      if (alive || closing) worker.ref();
      else worker.unref();
    },
  };
}
