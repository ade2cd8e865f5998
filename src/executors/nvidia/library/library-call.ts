import { at } from '../../../tensor/shape.ts';
import type { Kernel } from '../kernel.ts';
import type { Launch } from '../kernel-cache.ts';

/** How a node is computed by libraries, possibly with small kernels around them. */
export interface LibraryCall {
  /** Bytes of each piece of memory that it needs for itself while it runs. */
  readonly scratch: readonly number[];
  /** Kernels that it launches, to be prepared before it is bound. */
  readonly kernels: readonly Kernel[];
  /** What to launch, in order, when the node's operands, its results and the scratch are at these addresses. */
  readonly bind: (addresses: CallAddresses) => readonly Launch[];
}

/** Addresses of a {@link LibraryCall}. */
export interface CallAddresses {
  readonly inputs: readonly bigint[];
  readonly outputs: readonly bigint[];
  readonly scratch: readonly bigint[];
}

/** Scratch with names: its sizes, and how to find the addresses by name again. */
export function namedScratch<Name extends string>(bytes: Readonly<Record<Name, number>>) {
  const names = Object.keys(bytes) as Name[];
  return {
    sizes: names.map((name) => bytes[name]),
    addresses: ({ scratch }: CallAddresses) =>
      Object.fromEntries(names.map((name, index) => [name, at(scratch, index)])) as Record<Name, bigint>,
  };
}
