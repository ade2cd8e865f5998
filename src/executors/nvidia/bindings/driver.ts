import { loadLibrary } from './discovery.ts';
import { graphPrototypes } from './graphs.ts';
import { NativeMemory, textAt } from './native.ts';

const prototypes = {
  cuInit: ['int', 'uint'],
  cuDriverGetVersion: ['int', 'pointer'],
  cuDeviceGetCount: ['int', 'pointer'],
  cuDeviceGet: ['int', 'pointer', 'int'],
  cuDeviceGetName: ['int', 'pointer', 'int', 'int'],
  cuDeviceGetAttribute: ['int', 'pointer', 'int', 'int'],
  cuDevicePrimaryCtxRetain: ['int', 'pointer', 'int'],
  cuDevicePrimaryCtxRelease_v2: ['int', 'int'],
  cuCtxSetCurrent: ['int', 'pointer'],
  cuMemGetInfo_v2: ['int', 'pointer', 'pointer'],
  cuMemAlloc_v2: ['int', 'pointer', 'size'],
  cuMemFree_v2: ['int', 'pointer'],
  cuMemHostAlloc: ['int', 'pointer', 'size', 'uint'],
  cuMemFreeHost: ['int', 'pointer'],
  cuMemHostRegister_v2: ['int', 'pointer', 'size', 'uint'],
  cuMemHostUnregister: ['int', 'pointer'],
  cuMemcpyHtoDAsync_v2: ['int', 'pointer', 'pointer', 'size', 'pointer'],
  cuMemcpyDtoHAsync_v2: ['int', 'pointer', 'pointer', 'size', 'pointer'],
  cuMemcpyDtoDAsync_v2: ['int', 'pointer', 'pointer', 'size', 'pointer'],
  cuMemsetD8Async: ['int', 'pointer', 'byte', 'size', 'pointer'],
  cuStreamCreate: ['int', 'pointer', 'uint'],
  cuStreamCreateWithPriority: ['int', 'pointer', 'uint', 'int'],
  cuStreamWaitEvent: ['int', 'pointer', 'pointer', 'uint'],
  cuStreamDestroy_v2: ['int', 'pointer'],
  cuStreamSynchronize: ['int', 'pointer'],
  cuEventCreate: ['int', 'pointer', 'uint'],
  cuEventDestroy_v2: ['int', 'pointer'],
  cuEventRecord: ['int', 'pointer', 'pointer'],
  cuEventSynchronize: ['int', 'pointer'],
  cuEventQuery: ['int', 'pointer'],
  cuEventElapsedTime: ['int', 'pointer', 'pointer', 'pointer'],
  cuModuleLoadData: ['int', 'pointer', 'pointer'],
  cuModuleUnload: ['int', 'pointer'],
  cuModuleGetFunction: ['int', 'pointer', 'pointer', 'pointer'],
  cuFuncSetAttribute: ['int', 'pointer', 'int', 'int'],
  cuLaunchKernel: [
    'int',
    'pointer',
    'uint',
    'uint',
    'uint',
    'uint',
    'uint',
    'uint',
    'uint',
    'pointer',
    'pointer',
    'pointer',
  ],
  cuStreamBeginCapture_v2: ['int', 'pointer', 'int'],
  cuStreamEndCapture: ['int', 'pointer', 'pointer'],
  ...graphPrototypes,
  cuGraphInstantiateWithFlags: ['int', 'pointer', 'pointer', 'int64'],
  cuGraphUpload: ['int', 'pointer', 'pointer'],
  cuGraphLaunch: ['int', 'pointer', 'pointer'],
  cuGraphExecDestroy: ['int', 'pointer'],
  cuGraphDestroy: ['int', 'pointer'],
  cuGetErrorName: ['int', 'int', 'pointer'],
  cuGetErrorString: ['int', 'int', 'pointer'],
} as const;

/** The CUDA driver's functions, and the check of their status. */
export type Driver = ReturnType<typeof loadDriver>;

/**
 * Loads the CUDA driver.
 * @throws Error when there is none.
 */
export function loadDriver() {
  const { path, functions } = loadLibrary('driver', prototypes);
  return { path, ...functions, check: (status: number, action: string) => check(functions, status, action) };
}

/** Numbers of `CUdevice_attribute`. */
export const deviceAttributes = {
  multiprocessors: 16,
  computeCapabilityMajor: 75,
  computeCapabilityMinor: 76,
} as const;

/** `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`. */
export const maxDynamicSharedBytes = 8;

/** `CU_STREAM_NON_BLOCKING`: a stream that does not wait for the default stream. */
export const nonBlockingStream = 1;

/** The priority of a stream whose kernels come first; the driver takes the highest that there is. */
export const firstPriority = -100;

/** `CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY`: what was recorded keeps the priority of its stream. */
export const ownPriorities = 8;

/** `CU_EVENT_DISABLE_TIMING`: an event that only orders. */
export const orderingEvent = 2;

/** `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`. */
export const captureThreadLocal = 1;

/** A status of the CUDA driver other than success. */
export class CudaError extends Error {
  override readonly name = 'CudaError';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function check(
  driver: Pick<
    ReturnType<typeof loadLibrary<typeof prototypes>>['functions'],
    'cuGetErrorName' | 'cuGetErrorString'
  >,
  status: number,
  action: string,
): void {
  if (status === 0) return;
  const text = new NativeMemory(8);
  const read = (get: typeof driver.cuGetErrorName) =>
    get(status, text.bytes) === 0 ? textAt(text.pointer()) : '';
  const [name, meaning] = [read(driver.cuGetErrorName), read(driver.cuGetErrorString)];
  throw new CudaError(status, `${action}: ${name || `CUDA error ${status}`}${meaning && ` (${meaning})`}`);
}
