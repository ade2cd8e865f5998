import { Binding } from '../../../../src/executors/nvidia/binding.ts';
import { bytesAt, NativeMemory } from '../../../../src/executors/nvidia/bindings/native.ts';
import type { Nccl } from '../../../../src/executors/nvidia/bindings/nccl.ts';
import { Communicator } from '../../../../src/executors/nvidia/communicator.ts';
import type { Device } from '../../../../src/executors/nvidia/device.ts';
import {
  type Kernel,
  type LibraryStage,
  operandsOfCall,
  resultsOfCall,
} from '../../../../src/executors/nvidia/kernel.ts';
import type { KernelCache } from '../../../../src/executors/nvidia/kernel-cache.ts';
import type { LibraryCall } from '../../../../src/executors/nvidia/library/library-call.ts';
import type { Storage } from '../../../../src/executors/nvidia/storage.ts';
import { bytesOf, type HostTensor, zeros } from '../../../../src/tensor/host-tensor.ts';
import { at } from '../../../../src/tensor/shape.ts';
import type { CpuKernels } from './compile.ts';
import { computeStage, constantTensor, type StandInProgram } from './stand-in-executor.ts';

/** What a stream was given: something to do, or a point that another stream has to reach before. */
interface Queued {
  readonly work?: () => void;
  readonly after?: Reached;
}

/** Whether a stream has come to a point. */
interface Reached {
  isReached: boolean;
}

/**
 * A GPU's streams and events on the host. Nothing is done when it is queued: {@link finish} does it, in any order that
 * the events allow. Other processes have the data that this one has.
 */
export class HostStreams {
  /** Set before anything is done. */
  compiled: CpuKernels | undefined;
  readonly main = 77n;
  readonly device: Device;
  private readonly queues = new Map<bigint, Queued[]>([[this.main, []]]);
  private readonly events = new Map<bigint, Reached>();
  /** Points of the side streams that the main one does not wait for. */
  private readonly unjoined = new Set<Reached>();
  /** Memory of bound programs. */
  private readonly blocks: NativeMemory[] = [];
  private created = 100n;
  private world = 1;

  constructor() {
    const create = () => {
      this.created++;
      return this.created;
    };
    const record = (event: bigint, stream = this.main) => {
      const point: Reached = { isReached: false };
      this.events.set(event, point);
      this.queue({ work: () => Object.assign(point, { isReached: true }) }, stream);
      if (stream !== this.main) this.unjoined.add(point);
    };
    this.device = {
      stream: this.main,
      createSideStream: () => {
        const stream = create();
        this.queues.set(stream, []);
        return stream;
      },
      createOrderingEvent: create,
      record,
      holdFor: (event: bigint, stream = this.main) => {
        const after = this.events.get(event);
        if (after === undefined) return;
        this.queue({ after }, stream);
        if (stream === this.main) this.unjoined.delete(after);
      },
      clear: (target: bigint, bytes: number) => this.queue({ work: () => bytesAt(target, bytes).fill(0) }),
      capture: (queue: () => void) => {
        queue();
        if (this.unjoined.size > 0) throw new Error('a side stream is not waited for at the end of a graph');
        for (const queued of this.queues.values()) queued.length = 0;
        return { launch: queue, dispose: () => undefined };
      },
      driver: {
        cuEventDestroy_v2: (event: bigint) => this.events.delete(event),
        cuStreamDestroy_v2: (stream: bigint) => this.queues.delete(stream),
      },
    } as unknown as Device;
  }

  /** A way to `world - 1` processes that do what this one does. */
  connect(world: number): Communicator {
    this.world = world;
    return new Communicator(this.device, { rank: 0, world }, new Uint8Array(128), this.nccl());
  }

  /** What a library node launches: the reference executor's computation. */
  readonly lower = (stage: LibraryStage, storage: Storage): LibraryCall => ({
    scratch: [],
    kernels: [],
    bind: ({ inputs, outputs }) => {
      const bytes = (tensor: { readonly shape: readonly number[] }, dtype: HostTensor['dtype']) =>
        bytesOf(zeros(dtype, tensor.shape)).length;
      const given = operandsOfCall(stage).map((one, i) => bytesAt(at(inputs, i), bytes(one, storage(one))));
      const made = resultsOfCall(stage).map((one, i) => bytesAt(at(outputs, i), bytes(one, storage(one))));
      return [() => this.queue({ work: () => computeStage(stage, given, made, storage) })];
    },
  });

  /** Does all that was queued. @param isSideFirst whether the side streams do first what they can, or last. */
  finish(isSideFirst: boolean): void {
    const streams = [...this.queues].sort(([a], [b]) => Number(a - b) * (isSideFirst ? -1 : 1));
    for (;;) {
      const next = streams.find(([, [first]]) => first && first.after?.isReached !== false);
      if (next === undefined) break;
      next[1].shift()?.work?.();
    }
    if (streams.some(([, queue]) => queue.length > 0)) throw new Error('streams wait for each other');
  }

  /** Binds a program to memory that holds its inputs; the rest is poisoned. */
  bind({ program }: StandInProgram, communicator: Communicator, inputs: readonly HostTensor[]): BoundProgram {
    const place = (bytes: number, values?: Uint8Array) => {
      const block = new NativeMemory(bytes + 512);
      this.blocks.push(block);
      block.bytes.fill(0xff);
      const address = (block.address + 255n) & ~255n;
      if (values !== undefined) bytesAt(address, bytes).set(values);
      return address;
    };
    const held = (tensor: HostTensor) => place(bytesOf(tensor).length, bytesOf(tensor));
    const kernels = {
      bind: (kernel: Kernel, addresses: readonly bigint[]) => () =>
        this.queue({ work: () => this.compiled?.run(kernel, addresses) }),
    } as unknown as KernelCache;
    const binding = new Binding(this.device, { kernels, communicator }, program, {
      inputs: inputs.map(held),
      arena: place(program.arenaBytes),
      constants: new Map(program.constants.map(({ value, node }) => [value, held(constantTensor(node))])),
    });
    const outputs = () =>
      program.graph.outputs.map(({ dtype, shape }, index) => {
        const tensor = zeros(dtype, shape);
        const { location, bytes } = at(program.outputs, index);
        bytesOf(tensor).set(bytesAt(binding.addressOf(location), bytes));
        return tensor;
      });
    return { binding, outputs };
  }

  private queue(queued: Queued, stream = this.main): void {
    const queue = this.queues.get(stream);
    if (queue === undefined) throw new Error(`there is no stream ${stream}`);
    queue.push(queued);
  }

  /** Queues what is computed of numbers of float32. */
  private exchange(
    stream: bigint,
    from: bigint,
    given: number,
    to: bigint,
    made: number,
    compute: (x: Float32Array, y: Float32Array) => void,
  ): number {
    const work = () => {
      const x = new Float32Array(bytesAt(from, 4 * given).slice().buffer);
      const y = new Float32Array(made);
      compute(x, y);
      bytesAt(to, 4 * made).set(new Uint8Array(y.buffer));
    };
    this.queue({ work }, stream);
    return 0;
  }

  private nccl(): Nccl {
    return {
      check: () => undefined,
      ncclCommInitRank: () => 0,
      ncclCommDestroy: () => 0,
      ncclGroupStart: () => 0,
      ncclGroupEnd: () => 0,
      ncclAllReduce: (
        from: bigint,
        to: bigint,
        count: number,
        _type: number,
        _op: number,
        _comm: bigint,
        on: bigint,
      ) => this.exchange(on, from, count, to, count, (x, y) => y.set(x.map((value) => this.world * value))),
      ncclReduceScatter: (
        from: bigint,
        to: bigint,
        count: number,
        _type: number,
        _op: number,
        _comm: bigint,
        on: bigint,
      ) =>
        this.exchange(on, from, count * this.world, to, count, (x, y) =>
          y.set(x.subarray(0, count).map((value) => this.world * value)),
        ),
      ncclAllGather: (from: bigint, to: bigint, count: number, _type: number, _comm: bigint, on: bigint) =>
        this.exchange(on, from, count, to, count * this.world, (x, y) => {
          for (let rank = 0; rank < this.world; rank++) y.set(x, rank * count);
        }),
    } as unknown as Nccl;
  }
}

/** A program on the host's streams. */
export interface BoundProgram {
  readonly binding: Binding;
  /** Values of the outputs after a run. */
  readonly outputs: () => HostTensor[];
}
