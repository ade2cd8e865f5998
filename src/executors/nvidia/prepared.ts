import { at } from '../../tensor/shape.ts';
import type { Device } from './device.ts';
import type { Location, StepAccess } from './donation.ts';
import type { Kernel } from './kernel.ts';
import type { KernelCache } from './kernel-cache.ts';

/** A kernel that computes something of fixed inputs alone. */
export interface PreparedStep extends StepAccess {
  readonly kernel: Kernel;
}

/** What a program has of its own to prepare. */
export interface Preparation {
  /** In the order in which they run. */
  readonly prepared: readonly PreparedStep[];
  /** Bytes of each value. */
  readonly bytes: readonly number[];
}

/** A buffer as it is told from others: a number of its own, since an address is given out again. */
export interface GivenBuffer {
  readonly id: number;
  readonly address: bigint;
}

/** Where a program finds what was prepared for it, by value, until it is disposed. */
export interface TakenValues extends Disposable {
  readonly addresses: ReadonlyMap<number, bigint>;
}

/** What one kernel made of certain buffers. */
interface Entry {
  readonly id: number;
  readonly key: string;
  readonly addresses: readonly bigint[];
  uses: number;
}

/**
 * What kernels make of inputs that stay the same from run to run, such as weights in bf16: computed when the first program
 * needs it, and shared by all that need the same of the same buffers, so that a model has it once whatever the number of
 * sizes that it is compiled for. The last that is done with it frees it.
 */
export class PreparedValues {
  private readonly device: Pick<Device, 'memory'>;
  private readonly kernels: Pick<KernelCache, 'bind'>;
  private readonly entries = new Map<string, Entry>();
  private nextId = 0;

  constructor(device: Pick<Device, 'memory'>, kernels: Pick<KernelCache, 'bind'>) {
    this.device = device;
    this.kernels = kernels;
  }

  /** Queues what is not there yet. @param inputs of the program, all of them. */
  take({ prepared, bytes }: Preparation, inputs: readonly GivenBuffer[]): TakenValues {
    const taken: Entry[] = [];
    const addresses = new Map<number, bigint>();
    const names = new Map<number, string>();
    const dispose = () => {
      for (const entry of taken.splice(0)) this.giveBack(entry);
    };
    const find = (place: Location): readonly [name: string, address: bigint] => {
      if (place.kind === 'value') return [names.get(place.value) ?? '', addresses.get(place.value) ?? 0n];
      const { id, address } = at(inputs, place.index);
      return [`${id}`, address];
    };
    try {
      for (const { kernel, reads, writes } of prepared) {
        const found = reads.map(find);
        const sizes = writes.map((value) => at(bytes, value));
        const key = [kernel.name, ...found.map(([name]) => name), ...sizes].join(' ');
        const entry =
          this.entries.get(key) ??
          this.make(
            key,
            kernel,
            found.map(([, address]) => address),
            sizes,
          );
        entry.uses++;
        taken.push(entry);
        writes.forEach((value, index) => {
          addresses.set(value, at(entry.addresses, index));
          names.set(value, `${entry.id}.${index}`);
        });
      }
    } catch (error) {
      dispose();
      throw error;
    }
    return { addresses, [Symbol.dispose]: dispose };
  }

  private make(key: string, kernel: Kernel, inputs: readonly bigint[], sizes: readonly number[]): Entry {
    const { memory } = this.device;
    const addresses: bigint[] = [];
    try {
      for (const size of sizes) addresses.push(memory.allocate(size));
      this.kernels.bind(kernel, [...inputs, ...addresses])();
    } catch (error) {
      for (const address of addresses) memory.release(address);
      throw error;
    }
    const entry = { id: this.nextId++, key, addresses, uses: 0 };
    this.entries.set(key, entry);
    return entry;
  }

  private giveBack(entry: Entry): void {
    entry.uses--;
    if (entry.uses > 0) return;
    this.entries.delete(entry.key);
    for (const address of entry.addresses) this.device.memory.release(address);
  }
}
