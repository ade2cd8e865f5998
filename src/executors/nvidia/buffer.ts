import type { DType } from '../../tensor/dtype.ts';
import type { Shape, TensorType } from '../../tensor/shape.ts';
import type { DeviceBuffer } from '../executor.ts';
import type { Device } from './device.ts';

let made = 0;

/** A tensor in the memory of a GPU. */
export class NvidiaBuffer implements DeviceBuffer {
  /** Its own, also among buffers that lie where others were. */
  readonly id = made++;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly device: Device;
  readonly address: bigint;
  disposed = false;
  /** The last run that it was to be donated to: two donated inputs of one run must not be one buffer. */
  donatedTo: object | undefined;

  constructor({ shape, dtype }: TensorType, address: bigint, device: Device) {
    this.shape = shape;
    this.dtype = dtype;
    this.address = address;
    this.device = device;
  }

  /** Leaves the memory to whoever calls this; the buffer is gone. */
  surrender(): void {
    this.disposed = true;
  }

  [Symbol.dispose](): void {
    if (!this.disposed && !this.device.disposed) this.device.memory.release(this.address);
    this.disposed = true;
  }
}
