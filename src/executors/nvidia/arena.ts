import type { Device } from './device.ts';

interface Block {
  readonly address: bigint;
  readonly bytes: number;
}

/**
 * Working memory that all executables of a device share: they run one after the other, and nothing in it outlives a
 * run. It only grows.
 */
export class Arena {
  private readonly device: Device;
  private block: Block | undefined;
  private reserved: Block | undefined;

  constructor(device: Device) {
    this.device = device;
  }

  /**
   * Sets memory aside for a program that must stay where it is: from now on {@link require} gives the same address for
   * `bytes` and less, until more is reserved.
   */
  reserve(bytes: number): void {
    if (this.reserved !== undefined && this.reserved.bytes >= bytes) return;
    const before = [this.block, this.reserved];
    this.block = undefined;
    this.reserved = undefined;
    this.reserved = this.inPlaceOf(before, bytes);
  }

  /** Address of at least `bytes` bytes. It changes when the arena grows. */
  require(bytes: number): bigint {
    const known = [this.reserved, this.block].find((block) => block !== undefined && block.bytes >= bytes);
    if (known !== undefined) return known.address;
    const before = this.block;
    this.block = undefined;
    this.block = this.inPlaceOf([before], bytes);
    return this.block.address;
  }

  private inPlaceOf(before: readonly (Block | undefined)[], bytes: number): Block {
    const { memory } = this.device;
    for (const block of before) if (block !== undefined) memory.release(block.address);
    memory.trim();
    return { address: memory.allocate(bytes), bytes };
  }
}
