import type { DType } from '../../tensor/dtype.ts';
import { makeGraph } from '../../tensor/graph.ts';
import { bytesOf, fromFloat32, type HostTensor, hostTensor, zeros } from '../../tensor/host-tensor.ts';
import { inlineCalls } from '../../tensor/rewrite.ts';
import { at, elementCount, formatType, type Shape } from '../../tensor/shape.ts';
import type { Graph, Node } from '../../tensor/tensor.ts';
import { verify } from '../../tensor/verify.ts';
import {
  type CompileOptions,
  checkInputs,
  type DeviceBuffer,
  type Executable,
  type Executor,
  ExecutorError,
  type Precision,
} from '../executor.ts';
import type { ProcessGroup } from '../process-group.ts';
import { Arena } from './arena.ts';
import type { StepTime } from './binding.ts';
import { NvidiaBuffer } from './buffer.ts';
import { isCollective } from './collectives.ts';
import { Communicator } from './communicator.ts';
import { Device } from './device.ts';
import { NvidiaExecutable } from './executable.ts';
import type { Kernel, LibraryStage, Partition, TakesTail } from './kernel.ts';
import { KernelCache } from './kernel-cache.ts';
import { Libraries } from './library/libraries.ts';
import { fillKernel } from './memsets.ts';
import { narrowed } from './narrowing.ts';
import { type Buckets, defaultBucketBytes } from './overlap.ts';
import { PreparedValues } from './prepared.ts';
import { bucketsOfProgram, bytesOfType, isShared, type Program, planProgram } from './program.ts';
import { quantised } from './quantising.ts';
import { ownStorage, type Storage } from './storage.ts';

/** Settings of an {@link NvidiaExecutor}. */
export interface NvidiaSettings {
  /** Which GPU. Default 0. */
  readonly device?: number;
  /** Default `tf32`. */
  readonly precision?: Precision;
  /** What processes exchange at once, in bytes. Default 32 MiB. */
  readonly bucketBytes?: number;
}

/** What makes kernels: the partition of graphs, and the source that stands before every kernel. */
export interface KernelGenerator {
  /** Rewrites a graph without calls before it is cut; default: not at all. */
  readonly prepare?: (graph: Graph) => Graph;
  readonly partition: Partition;
  readonly prelude: string;
}

/**
 * Runs graphs on one NVIDIA GPU: kernels generated for the graph, matrix products by cuBLASLt, convolutions and
 * attention by cuDNN. A graph runs as one recorded launch from its second run on.
 */
export class NvidiaExecutor implements Executor {
  readonly name: string;
  readonly device: Device;
  private readonly generator: KernelGenerator;
  private readonly precision: Precision;
  private readonly bucketBytes: number;
  private readonly kernels: KernelCache;
  private processes: ProcessGroup | undefined;
  private communicator: Communicator | undefined;
  /** What other processes run too: a communicator waits for the end of all graphs that use it. */
  private readonly shared: NvidiaExecutable[] = [];
  private readonly libraries: Libraries;
  private readonly arena: Arena;
  private readonly prepared: PreparedValues;

  /** @throws Error naming what is missing: a driver, a GPU, a library. */
  constructor(
    generator: KernelGenerator,
    { device = 0, precision = 'tf32', bucketBytes = defaultBucketBytes }: NvidiaSettings = {},
  ) {
    this.generator = generator;
    this.precision = precision;
    this.bucketBytes = bucketBytes;
    this.device = new Device(device);
    if (precision === 'fp8') requireFp8(this.device);
    this.name = `nvidia ${precision}`;
    this.kernels = new KernelCache(this.device, generator.prelude);
    this.libraries = new Libraries(this.device, this.kernels, precision);
    this.arena = new Arena(this.device);
    this.prepared = new PreparedValues(this.device, this.kernels);
  }

  /**
   * Makes the collectives of what is compiled from now on those of several processes, each with a GPU of its own; before
   * that they are the identity. Blocks until all processes do it.
   * @param id of `newCommunicatorId`, the same for all.
   */
  connect(processes: ProcessGroup, id: Uint8Array): void {
    this.processes = processes;
    this.communicator = new Communicator(this.device, processes, id);
  }

  async compile(graph: Graph, { donate = [], fixed = [] }: CompileOptions = {}): Promise<Executable> {
    verify(graph, this.name);
    const inlined = makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames);
    const prepared = this.generator.prepare?.(inlined) ?? inlined;
    const takes = (node: Node) =>
      this.libraries.takes(node) || (this.communicator !== undefined && isCollective(node));
    const takesTail: TakesTail = (tail, stored) => this.libraries.takesTail(tail, stored);
    const { graph: narrow, storage } = this.stored(prepared, takes, takesTail);
    const still = new Set(fixed.map((index) => at(narrow.inputs, index).node));
    const isFixed = (node: Node) => still.has(node);
    const stages = this.generator.partition(narrow, { takes, takesTail, storage, isFixed });
    const lower = (stage: LibraryStage) => this.libraries.lower(stage, storage);
    const plan = (buckets: number | Buckets) =>
      planProgram(narrow, stages, donate, lower, storage, buckets, fixed);
    const program = await this.agreed(plan(this.bucketBytes), plan);
    if (isShared(program)) this.arena.reserve(program.arenaBytes);
    await this.kernels.prepare([
      fillKernel,
      ...program.prepared.map(({ kernel }) => kernel),
      ...program.steps.flatMap(({ work }): readonly Kernel[] => kernelsOf(work)),
    ]);
    const constants = new Map<number, bigint>();
    for (const { value, node } of program.constants) {
      const { shape, dtype, values } = node.attributes;
      constants.set(value, this.write(constantTensor(shape, dtype, values)));
    }
    const executable = new NvidiaExecutable(
      graph,
      program,
      new Set(donate),
      constants,
      this.device,
      this.prepared,
    );
    if (isShared(program)) this.shared.push(executable);
    return executable;
  }

  /** What is computed in bf16 in place of f8e4m3 among what was compiled until now, and why. */
  async fallback(): Promise<string | undefined> {
    return this.libraries.fallback();
  }

  /**
   * A program that exchanges what those of the other processes exchange, in the same order: as process 0 does. What is fused
   * may depend on times that were measured.
   */
  private async agreed(own: Program, plan: (buckets: Buckets) => Program): Promise<Program> {
    if (this.processes === undefined || !isShared(own)) return own;
    const text = JSON.stringify(bucketsOfProgram(own));
    const [first] = await this.processes.exchange(new TextEncoder().encode(text));
    const chosen = new TextDecoder().decode(first);
    return chosen === text ? own : plan(JSON.parse(chosen) as Buckets);
  }

  upload(tensor: HostTensor): DeviceBuffer {
    return new NvidiaBuffer(tensor, this.write(tensor), this.device);
  }

  pin(memory: SharedArrayBuffer): Disposable {
    const pinned = this.device.pinned.register(memory);
    return {
      [Symbol.dispose]: () => {
        this.device.synchronize();
        pinned[Symbol.dispose]();
      },
    };
  }

  async download(buffer: DeviceBuffer): Promise<HostTensor> {
    const { address } = this.own(buffer);
    const bytes = bytesOfType(buffer);
    const tensor = zeros(buffer.dtype, buffer.shape);
    if (bytes === 0) return tensor;
    const { driver, pinned, stream } = this.device;
    const block = pinned.take(bytes);
    try {
      driver.check(driver.cuMemcpyDtoHAsync_v2(block.address, address, bytes, stream), 'download');
      this.device.record(block.event);
      await this.device.waitFor(block.event);
      bytesOf(tensor).set(block.bytes.subarray(0, bytes));
      return tensor;
    } catch (error) {
      throw failure(this.name, error);
    } finally {
      pinned.giveBack(block);
    }
  }

  async run(executable: Executable, inputs: readonly DeviceBuffer[]): Promise<readonly DeviceBuffer[]> {
    if (!(executable instanceof NvidiaExecutable) || executable.device !== this.device)
      throw new ExecutorError(`${this.name}: the executable is another executor's`);
    const given = this.accepted(executable, inputs);
    const addresses = executable.take(given);
    try {
      executable.prepare(given);
      const binding = executable.bind(addresses, this.arena, {
        kernels: this.kernels,
        communicator: this.communicator,
      });
      binding.run();
      return executable.takeOutputs(binding, addresses);
    } catch (error) {
      for (const index of executable.donated) this.device.memory.release(at(addresses, index));
      throw failure(this.name, error);
    }
  }

  /**
   * GPU time of each step of an executable that ran before, on the buffers of that run, whose values it spoils. Blocks.
   * @throws ExecutorError when it is another executor's or did not run yet.
   */
  profile(executable: Executable): readonly StepTime[] {
    const times = executable instanceof NvidiaExecutable ? executable.profile() : undefined;
    if (times === undefined)
      throw new ExecutorError(`${this.name}: profile of ${executable.graph.name}: run it first`);
    return times;
  }

  /**
   * What a run of an executable launches, as a `CUgraph` for benches to look into, as it is recorded: memsets are still in
   * it. Whoever asks for it destroys it.
   * @throws ExecutorError when it is another executor's or did not run yet.
   */
  record(executable: Executable): bigint {
    const graph = executable instanceof NvidiaExecutable ? executable.record() : undefined;
    if (graph === undefined)
      throw new ExecutorError(`${this.name}: record of ${executable.graph.name}: run it first`);
    return graph;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.device.synchronize();
    for (const executable of this.shared) executable[Symbol.dispose]();
    this.communicator?.[Symbol.dispose]();
    this.libraries.dispose();
    this.kernels.dispose();
    this.device.dispose();
  }

  /** A graph whose tensors lie in memory as the precision says. */
  private stored(
    graph: Graph,
    takes: (node: Node) => boolean,
    takesTail: TakesTail,
  ): { graph: Graph; storage: Storage } {
    switch (this.precision) {
      case 'fp32':
      case 'tf32':
        return { graph, storage: ownStorage };
      case 'bf16':
        return narrowed(graph, takes, takesTail);
      case 'fp8': {
        const scaled = quantised(graph, (node, isRead) => this.libraries.quantises(node, isRead));
        return narrowed(scaled.graph, takes, takesTail, scaled.products);
      }
    }
  }

  /** New memory with a tensor's values. */
  private write(tensor: HostTensor): bigint {
    const { driver, memory, pinned, stream } = this.device;
    const bytes = bytesOf(tensor);
    const address = memory.allocate(bytes.length);
    if (bytes.length === 0) return address;
    const own = pinned.addressOf(bytes);
    if (own !== undefined) {
      driver.check(driver.cuMemcpyHtoDAsync_v2(address, own, bytes.length, stream), 'upload');
      return address;
    }
    const block = pinned.take(bytes.length);
    block.bytes.set(bytes);
    driver.check(driver.cuMemcpyHtoDAsync_v2(address, block.address, bytes.length, stream), 'upload');
    this.device.record(block.event);
    pinned.giveBack(block);
    return address;
  }

  /** Inputs of a run. @throws ExecutorError when one does not fit. */
  private accepted(executable: NvidiaExecutable, inputs: readonly DeviceBuffer[]): readonly NvidiaBuffer[] {
    if (executable.fits(inputs)) return inputs;
    checkInputs(executable, inputs);
    return inputs.map((buffer) => this.own(buffer));
  }

  private own(buffer: DeviceBuffer): NvidiaBuffer {
    if (!(buffer instanceof NvidiaBuffer) || buffer.device !== this.device)
      throw new ExecutorError(`${this.name}: the buffer is another executor's; download and upload it`);
    if (buffer.disposed) throw new ExecutorError(`${this.name}: ${formatType(buffer)} was disposed`);
    return buffer;
  }
}

/** Compute capability from which on GPUs multiply f8e4m3: Ada's. */
const firstWithFp8 = 89;

function requireFp8({ name, architecture }: Device): void {
  if (Number.parseInt(architecture.replace('sm_', ''), 10) >= firstWithFp8) return;
  throw new Error(`precision fp8: ${name} (${architecture}) multiplies no 8-bit floats; use bf16`);
}

function kernelsOf(work: Program['steps'][number]['work']): readonly Kernel[] {
  switch (work.kind) {
    case 'kernel':
      return [work.kernel];
    case 'library':
      return work.call.kernels;
    case 'start':
    case 'wait':
      return [];
  }
}

/** The values of a constant: one that fills the shape, or all. */
function constantTensor(shape: Shape, dtype: DType, values: readonly number[]): HostTensor {
  const count = elementCount(shape);
  const all = values.length === 1 ? new Array<number>(count).fill(at(values, 0)) : values;
  switch (dtype) {
    case 'i32':
      return hostTensor(dtype, shape, Int32Array.from(all));
    case 'bool':
      return hostTensor(dtype, shape, Uint8Array.from(all));
    case 'f32':
    case 'f16':
    case 'bf16':
      return fromFloat32(dtype, shape, Float32Array.from(all));
    case 'f8e4m3':
    case 'f8e5m2':
      throw new ExecutorError(`nvidia: a constant of ${dtype} has no values; load its bits`);
  }
}

function failure(name: string, error: unknown): ExecutorError {
  if (error instanceof ExecutorError) return error;
  return new ExecutorError(`${name}: ${error instanceof Error ? error.message : String(error)}`, {
    cause: error,
  });
}
