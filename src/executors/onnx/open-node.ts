import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type {
  HostConnection,
  HostReply,
  NodeWorkerData,
  NodeWorkerMessage,
  OnnxPrecision,
} from './messages.ts';
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
  /**
   * How ONNX Runtime is called on the CPU: its `library` (default), which runs without copies, or where that cannot be
   * loaded, and always on other devices, its Node `package`.
   */
  readonly binding?: 'library' | 'package';
  /**
   * Folder of the library of our own operators, which the C library runs; false: do without. Default: the one that the
   * package ships, if there is one for this platform and the processor is new enough. A folder that cannot be used fails
   * whatever the executor is asked for.
   */
  readonly kernels?: string | false;
  /**
   * `bf16`: on the CPU, operands of matrix products of some size, and of the products of attention, are rounded to bfloat16,
   * with sums in float32. Needs our own operators and a processor that multiplies such numbers
   * ({@link OnnxExecutor.ownOperators} tells); without, nothing compiles. Default `fp32`.
   */
  readonly precision?: OnnxPrecision;
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
  binding = 'library',
  kernels,
  precision = 'fp32',
}: OnnxOptions = {}): OnnxExecutor {
  // The worker is the source file in development and the built one in the package.
  const entry = new URL(`./node-worker${extname(import.meta.url)}`, import.meta.url);
  // The worker's own heap holds names and numbers, a few megabytes. Told so, V8 collects its garbage early.
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(entry, {
    workerData: { useLibrary: device === 'cpu' && binding === 'library', stop } satisfies NodeWorkerData,
    resourceLimits: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 4 },
  });
  worker.unref();
  return new OnnxExecutor(connectionTo(worker, stop), {
    device,
    threads,
    strict,
    scoreBytes,
    precision,
    ...(kernels !== undefined && { kernels }),
  });
}

function connectionTo(worker: Worker, stop: Int32Array<SharedArrayBuffer>): HostConnection {
  let closing = false;
  const tell = (message: NodeWorkerMessage) => worker.postMessage(message);
  const ended = new Promise<void>((resolve) => {
    worker.on('exit', () => resolve());
  });
  return {
    send: tell,
    listen: (receive, fail) => {
      worker.on('message', (reply: HostReply) => receive(reply));
      worker.on('error', (error) => fail(error instanceof Error ? error : new Error(String(error))));
      worker.on('exit', (code) => fail(new Error(`the worker thread ended with code ${code}`)));
    },
    close: async () => {
      // An unreferenced worker would let the process end before it has.
      closing = true;
      worker.ref();
      Atomics.store(stop, 0, 1);
      tell('close');
      await ended;
    },
    keepAlive: (alive) => {
      if (alive || closing) worker.ref();
      else worker.unref();
    },
  };
}
