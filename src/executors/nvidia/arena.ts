import type { Device } from './device.ts';

/**
 * Working memory that all executables of a device share: they run one after the other, and nothing in it outlives a
 * run. It only grows.
 */
export class Arena {
  private readonly device: Device;
  private block: { address: bigint; bytes: number } | undefined;

  constructor(device: Device) {
    this.device = device;
  }

  /** Address of at least `bytes` bytes. It changes when the arena grows. */
  require(bytes: number): bigint {
    if (this.block !== undefined && this.block.bytes >= bytes) return this.block.address;
    const { memory } = this.device;
    if (this.block !== undefined) memory.release(this.block.address);
    this.block = undefined;
    memory.trim();
    this.block = { address: memory.allocate(bytes), bytes };
    return this.block.address;
  }
}
