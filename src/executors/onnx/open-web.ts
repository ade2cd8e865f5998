import type { HostConnection, HostReply } from './messages.ts';
import { OnnxExecutor } from './onnx-executor.ts';

/** Settings of {@link openWebOnnxExecutor}. */
export interface WebOnnxOptions {
  /** `webgpu` (default), or `wasm` on the CPU. */
  readonly device?: 'webgpu' | 'wasm';
  /** Threads of wasm; more than one needs a cross-origin isolated page. Default: ONNX Runtime's choice. */
  readonly threads?: number;
  /** Refuse models that the device cannot run whole. Default false. */
  readonly strict?: boolean;
  /** Most bytes of attention scores held at once, per layer. Default 16 MiB. */
  readonly scoreBytes?: number;
}

/**
 * Opens ONNX Runtime in a browser.
 *
 * @param worker a module worker that runs `web-worker.ts`; the caller makes it, because only a bundler that sees
 *   `new Worker(new URL('…/web-worker.js', import.meta.url), { type: 'module' })` knows to bundle it. Disposing the
 *   executor ends it.
 */
export function openWebOnnxExecutor(
  worker: Worker,
  { device = 'webgpu', threads = 0, strict = false, scoreBytes = 2 ** 24 }: WebOnnxOptions = {},
): OnnxExecutor {
  return new OnnxExecutor(connectionTo(worker), { device, threads, strict, scoreBytes });
}

function connectionTo(worker: Worker): HostConnection {
  return {
    send: (message) => worker.postMessage(message),
    listen: (receive, fail) => {
      worker.onmessage = ({ data }: MessageEvent<HostReply>) => receive(data);
      worker.onerror = (event) => fail(new Error(event.message));
    },
    close: async () => worker.terminate(),
    // A page lives as long as it is open; workers do not hold it.
    keepAlive: () => undefined,
  };
}
