import {
  captureThreadLocal,
  type Driver,
  deviceAttributes,
  firstPriority,
  loadDriver,
  nonBlockingStream,
  orderingEvent,
  ownPriorities,
} from './bindings/driver.ts';
import { callAsync, NativeMemory, textAt } from './bindings/native.ts';
import { DeviceMemory } from './device-memory.ts';
import { PinnedMemory } from './pinned-memory.ts';

/**
 * One GPU: its context, which belongs to this thread, the stream on which everything runs in order (what runs beside it,
 * {@link Device.createSideStream}, is waited for there), its memory.
 * Freed memory may be given out again at once, since whatever still reads it was queued before.
 */
export class Device {
  readonly driver: Driver;
  /** As the driver calls it: `NVIDIA H100 80GB HBM3`. */
  readonly name: string;
  /** What kernels are compiled for: `sm_90a`. */
  readonly architecture: string;
  readonly multiprocessors: number;
  /** `CUDA 13.0`: the newest version that the driver serves. */
  readonly driverVersion: string;
  readonly stream: bigint;
  readonly memory: DeviceMemory;
  readonly pinned: PinnedMemory;
  /** All that it had was freed: buffers and programs that outlive it have nothing to give back. */
  disposed = false;
  private readonly ordinal: number;
  private lastWait: Promise<void> = Promise.resolve();

  /** @throws Error when there is no driver or no such GPU. */
  constructor(index = 0) {
    const driver = loadDriver();
    this.driver = driver;
    const out = new NativeMemory(256);
    const count = gpuCount(driver);
    if (index >= count)
      throw new Error(`there is no GPU ${index}; this process sees ${count}, counted from 0`);
    driver.check(driver.cuDeviceGet(out.bytes, index), `cuDeviceGet(${index})`);
    this.ordinal = out.int();
    driver.check(driver.cuDeviceGetName(out.bytes, 200, this.ordinal), 'cuDeviceGetName');
    this.name = textAt(out.address);
    driver.check(driver.cuDriverGetVersion(out.bytes), 'cuDriverGetVersion');
    this.driverVersion = `CUDA ${Math.floor(out.int() / 1000)}.${(out.int() % 1000) / 10}`;
    const attribute = (number: number): number => {
      driver.check(driver.cuDeviceGetAttribute(out.bytes, number, this.ordinal), 'cuDeviceGetAttribute');
      return out.int();
    };
    const major = attribute(deviceAttributes.computeCapabilityMajor);
    // From Hopper on, the instructions of one architecture alone are behind its `a` form.
    this.architecture = `sm_${major}${attribute(deviceAttributes.computeCapabilityMinor)}${major >= 9 ? 'a' : ''}`;
    this.multiprocessors = attribute(deviceAttributes.multiprocessors);
    // The primary context is the one that cuBLASLt and cuDNN use too.
    driver.check(driver.cuDevicePrimaryCtxRetain(out.bytes, this.ordinal), 'cuDevicePrimaryCtxRetain');
    driver.check(driver.cuCtxSetCurrent(out.pointer()), 'cuCtxSetCurrent');
    driver.check(driver.cuStreamCreate(out.bytes, nonBlockingStream), 'cuStreamCreate');
    this.stream = out.pointer();
    this.memory = new DeviceMemory(driver, this.stream);
    this.pinned = new PinnedMemory(driver);
  }

  /** Bytes of the GPU's memory: free and in all. */
  memoryInfo(): { readonly free: number; readonly total: number } {
    const out = new NativeMemory(16);
    const { driver } = this;
    driver.check(driver.cuMemGetInfo_v2(out.bytes, out.bytes.subarray(8)), 'cuMemGetInfo');
    return { free: out.size(), total: out.size(8) };
  }

  /** Queues a copy within the GPU's memory. */
  copy(target: bigint, source: bigint, bytes: number): void {
    if (bytes === 0) return;
    this.driver.check(
      this.driver.cuMemcpyDtoDAsync_v2(target, source, bytes, this.stream),
      'copy on the GPU',
    );
  }

  /** Queues clearing memory. */
  clear(target: bigint, bytes: number): void {
    if (bytes === 0) return;
    this.driver.check(this.driver.cuMemsetD8Async(target, 0, bytes, this.stream), 'clear memory');
  }

  /** Waits, blocking, until everything queued is done. */
  synchronize(): void {
    this.driver.check(this.driver.cuStreamSynchronize(this.stream), 'wait for the GPU');
  }

  /** A new event: a point in the stream that can be waited for. The caller destroys it. */
  createEvent(): bigint {
    const out = new NativeMemory(8);
    this.driver.check(this.driver.cuEventCreate(out.bytes, 0), 'cuEventCreate');
    return out.pointer();
  }

  /** A stream beside that of the device, whose kernels come first where both have some. The caller destroys it. */
  createSideStream(): bigint {
    const out = new NativeMemory(8);
    const status = this.driver.cuStreamCreateWithPriority(out.bytes, nonBlockingStream, firstPriority);
    this.driver.check(status, 'cuStreamCreateWithPriority');
    return out.pointer();
  }

  /** An event by which streams wait for each other, without a time. The caller destroys it. */
  createOrderingEvent(): bigint {
    const out = new NativeMemory(8);
    this.driver.check(this.driver.cuEventCreate(out.bytes, orderingEvent), 'cuEventCreate');
    return out.pointer();
  }

  /** Marks the end of what is queued on a stream now. */
  record(event: bigint, stream = this.stream): void {
    this.driver.check(this.driver.cuEventRecord(event, stream), 'cuEventRecord');
  }

  /** Lets what is queued on a stream from now on wait for an event. */
  holdFor(event: bigint, stream = this.stream): void {
    this.driver.check(this.driver.cuStreamWaitEvent(stream, event, 0), 'cuStreamWaitEvent');
  }

  /** Whether everything before an event is done. */
  isDone(event: bigint): boolean {
    const status = this.driver.cuEventQuery(event);
    if (status === notReady) return false;
    this.driver.check(status, 'the work on the GPU');
    return true;
  }

  /**
   * Resolves when everything before an event is done; the event loop runs on meanwhile. Waits are one after the other:
   * the stream reaches its events in order, and worker threads are few.
   */
  waitFor(event: bigint): Promise<void> {
    const waiting = this.lastWait.then(async () => {
      if (this.isDone(event)) return;
      const status = await callAsync(this.driver.cuEventSynchronize, event);
      this.driver.check(status, 'the work on the GPU');
    });
    this.lastWait = waiting.catch(() => undefined);
    return waiting;
  }

  /** Milliseconds of GPU time that a call of `queue` takes, on average over `count` calls. Blocks. */
  time(queue: () => void, count: number): number {
    const [start, end] = [this.createEvent(), this.createEvent()];
    try {
      this.record(start);
      for (let i = 0; i < count; i++) queue();
      this.record(end);
      this.synchronize();
      const out = new NativeMemory(4);
      this.driver.check(this.driver.cuEventElapsedTime(out.bytes, start, end), 'cuEventElapsedTime');
      return out.float() / count;
    } finally {
      for (const event of [start, end]) this.driver.cuEventDestroy_v2(event);
    }
  }

  /**
   * Records what `queue` launches, without running it, as a graph that can be launched as one.
   * @param isForked whether it launches on side streams too, which it waits for.
   * @param edit changes what was recorded, a `CUgraph`.
   */
  capture(queue: () => void, isForked = false, edit: (graph: bigint) => void = () => undefined): LaunchGraph {
    const { driver, stream } = this;
    const graph = this.recordGraph(queue);
    const out = new NativeMemory(8);
    try {
      edit(graph);
      const status = driver.cuGraphInstantiateWithFlags(out.bytes, graph, isForked ? ownPriorities : 0);
      driver.check(status, 'instantiate a graph');
    } finally {
      driver.cuGraphDestroy(graph);
    }
    // Else its first launch would.
    driver.check(driver.cuGraphUpload(out.pointer(), stream), 'upload a graph');
    return new LaunchGraph(this, out.pointer());
  }

  /** Records what `queue` launches, without running it, as a `CUgraph`, which the caller destroys. */
  recordGraph(queue: () => void): bigint {
    const { driver, stream } = this;
    const out = new NativeMemory(8);
    driver.check(driver.cuStreamBeginCapture_v2(stream, captureThreadLocal), 'begin a graph');
    try {
      queue();
    } catch (error) {
      driver.cuStreamEndCapture(stream, out.bytes);
      throw error;
    }
    driver.check(driver.cuStreamEndCapture(stream, out.bytes), 'end a graph');
    return out.pointer();
  }

  /** Frees the stream and all memory; nothing of this device may be used afterwards. */
  dispose(): void {
    this.synchronize();
    this.disposed = true;
    this.memory.dispose();
    this.pinned.dispose();
    this.driver.cuStreamDestroy_v2(this.stream);
    this.driver.cuDevicePrimaryCtxRelease_v2(this.ordinal);
  }
}

/** GPUs that this process sees. @throws Error when there is no driver. */
export function gpuCount(driver = loadDriver()): number {
  const out = new NativeMemory(8);
  driver.check(driver.cuInit(0), 'cuInit');
  driver.check(driver.cuDeviceGetCount(out.bytes), 'cuDeviceGetCount');
  return out.int();
}

/** Recorded launches. */
export class LaunchGraph {
  private readonly device: Device;
  private readonly executable: bigint;

  /** Takes over a `CUgraphExec`. */
  constructor(device: Device, executable: bigint) {
    this.device = device;
    this.executable = executable;
  }

  /** Queues all launches. */
  launch(): void {
    const { driver, stream } = this.device;
    driver.check(driver.cuGraphLaunch(this.executable, stream), 'launch a graph');
  }

  /** Frees the graph once its launches are done; the driver waits for them. */
  dispose(): void {
    this.device.driver.cuGraphExecDestroy(this.executable);
  }
}

/** `CUDA_ERROR_NOT_READY`. */
const notReady = 600;
