import { at, elementCount } from '../../tensor/shape.ts';
import { NativeMemory } from './bindings/native.ts';
import { loadNccl, type Nccl, ncclSum, ncclTypes, uniqueIdBytes } from './bindings/nccl.ts';
import type { CollectiveNode } from './collectives.ts';
import type { Device } from './device.ts';
import type { Launch } from './kernel-cache.ts';

/** This process among those that compute together. */
export interface Place {
  readonly rank: number;
  readonly world: number;
}

/** A name by which the processes of one communicator find each other: one makes it, all are told. */
export function newCommunicatorId(): Uint8Array {
  const nccl = loadNccl();
  const id = new NativeMemory(uniqueIdBytes);
  nccl.check(nccl.ncclGetUniqueId(id.bytes), 'ncclGetUniqueId');
  return id.bytes;
}

/** Collectives on fixed memory, which run as one beside what the GPU computes. Dispose it to free its events. */
export interface Exchange extends Disposable {
  /** Queues them behind what the GPU was given until now. */
  readonly start: Launch;
  /** Lets what the GPU is given from now on wait until they are done. */
  readonly wait: Launch;
}

/**
 * The way to the GPUs of other processes: NCCL, on a stream of its own. Dispose it before the GPU, when all processes have
 * come to their end.
 */
export class Communicator implements Disposable {
  private readonly device: Device;
  private readonly nccl: Nccl;
  private readonly handle: bigint;
  private readonly world: number;
  private readonly stream: bigint;

  /**
   * Blocks until every process of the communicator is here.
   * @param id of {@link newCommunicatorId}, the same for all.
   * @param nccl the library.
   */
  constructor(device: Device, { rank, world }: Place, id: Uint8Array, nccl = loadNccl()) {
    const out = new NativeMemory(8);
    nccl.check(nccl.ncclCommInitRank(out.bytes, world, { bytes: id }, rank), 'ncclCommInitRank');
    this.device = device;
    this.nccl = nccl;
    this.handle = out.pointer();
    this.world = world;
    // Its kernels are few and others wait for them: they come before those of the computation that runs beside them.
    this.stream = device.createSideStream();
  }

  /** Several collectives as one; every process has to start the same ones in the same order. */
  bind(nodes: readonly CollectiveNode[], inputs: readonly bigint[], outputs: readonly bigint[]): Exchange {
    const { device, nccl, stream } = this;
    const launches = nodes.map((node, index) => this.bindOne(node, at(inputs, index), at(outputs, index)));
    const [ready, done] = [device.createOrderingEvent(), device.createOrderingEvent()];
    return {
      start: () => {
        device.record(ready);
        device.holdFor(ready, stream);
        nccl.check(nccl.ncclGroupStart(), 'ncclGroupStart');
        try {
          for (const launch of launches) launch();
        } finally {
          nccl.check(nccl.ncclGroupEnd(), 'ncclGroupEnd');
        }
        device.record(done, stream);
      },
      wait: () => device.holdFor(done),
      [Symbol.dispose]: () => {
        for (const event of [ready, done]) device.driver.cuEventDestroy_v2(event);
      },
    };
  }

  [Symbol.dispose](): void {
    this.nccl.check(this.nccl.ncclCommDestroy(this.handle), 'ncclCommDestroy');
    this.device.driver.cuStreamDestroy_v2(this.stream);
  }

  private bindOne(node: CollectiveNode, input: bigint, output: bigint): Launch {
    const { nccl, handle, world, stream } = this;
    const { shape, dtype } = node.operands[0];
    const count = elementCount(shape);
    const type = typeOf(dtype);
    if (node.op !== 'allReduce' && node.attributes.processes !== world)
      throw new Error(`${node.op} is of ${node.attributes.processes} processes, there are ${world}`);
    switch (node.op) {
      case 'allReduce':
        return () =>
          nccl.check(nccl.ncclAllReduce(input, output, count, type, ncclSum, handle, stream), node.op);
      case 'allGather':
        return () => nccl.check(nccl.ncclAllGather(input, output, count, type, handle, stream), node.op);
      case 'reduceScatter':
        return () =>
          nccl.check(
            nccl.ncclReduceScatter(input, output, count / world, type, ncclSum, handle, stream),
            node.op,
          );
    }
  }
}

function typeOf(dtype: string): number {
  if (dtype === 'f32' || dtype === 'f16' || dtype === 'bf16') return ncclTypes[dtype];
  throw new Error(`NCCL does not add ${dtype}`);
}
