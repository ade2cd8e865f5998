import { parentPort } from 'node:worker_threads';
import * as ort from 'onnxruntime-node';
import type { NumberedRequest } from './messages.ts';
import { SessionHost } from './session-host.ts';

/** Entry point of the worker thread that holds ONNX Runtime in Node. */
const port = parentPort;
if (port === null) throw new Error('node-worker.ts is started by openOnnxExecutor, in a worker thread');
const host = new SessionHost(ort);
port.on('message', (message: NumberedRequest) => host.accept(message, (reply) => port.postMessage(reply)));
