import * as ort from 'onnxruntime-web/webgpu';
import { JsRuntime } from './js-runtime.ts';
import type { NumberedRequest } from './messages.ts';
import { SessionHost } from './session-host.ts';

/** Entry point of the worker that holds ONNX Runtime in a browser: `webgpu`, or `wasm` on the CPU. */
const host = new SessionHost(new JsRuntime(ort));
self.onmessage = ({ data }: MessageEvent<NumberedRequest>) => {
  const { request } = data;
  // Threads belong to the wasm module and must be set before it loads; more than one needs a cross-origin isolated page.
  if (request.kind === 'start' && request.settings.threads > 0)
    ort.env.wasm.numThreads = request.settings.threads;
  host.accept(data, (reply, transfer) => self.postMessage(reply, { transfer }));
};
