import { bytesPerElement, type DType } from '../../tensor/dtype.ts';
import { elementCount } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';

/**
 * The dtype in which a tensor lies in memory, if it does. Kernels compute in the tensor's own dtype whatever that is:
 * they widen as they read and round as they write.
 */
export type Storage = (tensor: Tensor) => DType;

/** Every tensor in its own dtype. */
export const ownStorage: Storage = ({ dtype }) => dtype;

/** Bytes of a tensor in memory. */
export function storedBytes(tensor: Tensor, storage: Storage): number {
  return elementCount(tensor.shape) * bytesPerElement(storage(tensor));
}
