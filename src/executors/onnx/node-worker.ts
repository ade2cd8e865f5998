import { parentPort, workerData } from 'node:worker_threads';
import { JsRuntime } from './js-runtime.ts';
import type { NodeWorkerData, NodeWorkerMessage } from './messages.ts';
import { SessionHost } from './session-host.ts';

/** Entry point of the worker thread that holds ONNX Runtime in Node. */
const port = parentPort;
if (port === null) throw new Error('node-worker.ts is started by openOnnxExecutor, in a worker thread');
const { useLibrary, stop } = workerData as NodeWorkerData;
const stopped = () => Atomics.load(stop, 0) !== 0;
const host = useLibrary ? await openNative() : await openJs();
port.on('message', (message: NodeWorkerMessage) => {
  if (message === 'close') void host.close().finally(() => process.exit(0));
  else host.accept(message, (reply, transfer) => port.postMessage(reply, transfer));
});

/** The C library, or the Node package where it cannot be loaded: a platform without koffi or without the library. */
async function openNative() {
  try {
    const { NativeRuntime } = await import('./native/native-runtime.ts');
    return new SessionHost(new NativeRuntime(), stopped);
  } catch (error) {
    const [reason] = String(error instanceof Error ? error.message : error).split('\n');
    return await openJs(`by its Node package, which is slower: the library cannot be called (${reason})`);
  }
}

async function openJs(fallback?: string) {
  return new SessionHost(new JsRuntime(await import('onnxruntime-node')), stopped, fallback);
}
