import type { Driver } from './bindings/driver.ts';
import { NativeMemory } from './bindings/native.ts';

/** Bytes to which addresses and sizes are rounded. */
export const alignment = 512;

/** `CUDA_ERROR_OUT_OF_MEMORY`. */
const outOfMemory = 2;

/**
 * Memory of the GPU. Freed blocks are kept and given out again for the same size: steps of a training ask for the same
 * sizes over and over, and asking the driver waits for the GPU.
 */
export class DeviceMemory {
  private readonly driver: Driver;
  private readonly stream: bigint;
  private readonly free = new Map<number, bigint[]>();
  private readonly sizes = new Map<bigint, number>();

  constructor(driver: Driver, stream: bigint) {
    this.driver = driver;
    this.stream = stream;
  }

  /**
   * A block of at least `bytes` bytes, at least 1.
   * @throws CudaError when the GPU's memory is full.
   */
  allocate(bytes: number): bigint {
    const size = roundUp(Math.max(bytes, 1));
    const kept = this.free.get(size)?.pop();
    if (kept !== undefined) return kept;
    const out = new NativeMemory(8);
    let status = this.driver.cuMemAlloc_v2(out.bytes, size);
    if (status === outOfMemory) {
      this.trim();
      status = this.driver.cuMemAlloc_v2(out.bytes, size);
    }
    this.driver.check(status, `allocate ${size} bytes on the GPU`);
    this.sizes.set(out.pointer(), size);
    return out.pointer();
  }

  /** Takes a block back. What was queued before may still use it. */
  release(address: bigint): void {
    const size = this.sizes.get(address);
    if (size === undefined) throw new Error(`address ${address} was not allocated here`);
    const blocks = this.free.get(size) ?? [];
    blocks.push(address);
    this.free.set(size, blocks);
  }

  /** Gives all kept blocks back to the driver, after waiting for the GPU. */
  trim(): void {
    this.driver.check(this.driver.cuStreamSynchronize(this.stream), 'wait for the GPU');
    for (const address of [...this.free.values()].flat()) this.giveBack(address);
    this.free.clear();
  }

  /** Frees everything, in use or not. */
  dispose(): void {
    for (const address of [...this.sizes.keys()]) this.giveBack(address);
    this.free.clear();
  }

  private giveBack(address: bigint): void {
    this.sizes.delete(address);
    this.driver.check(this.driver.cuMemFree_v2(address), 'free memory of the GPU');
  }
}

/** `bytes` rounded up to the {@link alignment}. */
export function roundUp(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
