import type { Executor } from '../executors/executor.ts';
import { bytesOf, type HostTensor, tensorIn } from '../tensor/host-tensor.ts';
import type { TensorType } from '../tensor/shape.ts';
import { leaves, mapTree, withLeaves } from '../tensor/tree.ts';
import type { Batch, BatchPlan, BatchValues } from './batch.ts';

/** What a thread is asked to make. */
export interface BatchRequest {
  readonly plan: BatchPlan;
  /** Memory to put the batch's tensors into, when it is large enough; without any they are sent on their own. */
  readonly memory: SharedArrayBuffer | undefined;
}

/** What a thread answers. */
export interface BatchReply {
  /** With tensors, or in their place a {@link PlacedTensor} each. */
  readonly batch: Omit<Batch, 'values'> & { readonly values: object };
  /** Where they are, when what was given was too small. */
  readonly memory: SharedArrayBuffer | undefined;
}

/** A tensor as its place in shared memory. */
export interface PlacedTensor extends TensorType {
  /** Bytes from the beginning. */
  readonly offset: number;
}

/** Tensors begin at multiples of this. */
const alignment = 64;
/** Unused bytes at both ends: what pins memory pins whole pages, and these are not all the memory's own. */
const margin = 4096;

/** Puts a batch's tensors into memory, or into new memory if that is too small. */
export function placeBatch(batch: Batch, given: SharedArrayBuffer): BatchReply {
  const tensors = leaves(batch.values as object) as HostTensor[];
  let end = margin;
  const placed = tensors.map(({ shape, dtype, data }): PlacedTensor => {
    const offset = Math.ceil(end / alignment) * alignment;
    end = offset + data.byteLength;
    return { shape, dtype, offset };
  });
  const size = end + margin;
  const fresh = given.byteLength < size ? new SharedArrayBuffer(size) : undefined;
  const target = new Uint8Array(fresh ?? given);
  for (const [i, { offset }] of placed.entries()) {
    const tensor = tensors[i];
    if (tensor !== undefined) target.set(bytesOf(tensor), offset);
  }
  return { batch: { ...batch, values: withLeaves(batch.values as object, placed) }, memory: fresh };
}

/**
 * Memory that threads put batches into and this thread reads them from, over and over: nothing is copied, allocated or
 * collected here for a batch, and a device that can reads it by itself.
 */
export class BatchMemory implements Disposable {
  readonly #pin: NonNullable<Executor['pin']>;
  readonly #free: SharedArrayBuffer[] = [];
  readonly #pins = new Map<SharedArrayBuffer, Disposable>();
  readonly #inUse = new Map<Batch, SharedArrayBuffer>();

  constructor(pin: NonNullable<Executor['pin']>) {
    this.#pin = pin;
  }

  /** Memory for the next batch; empty when there is none that is free. */
  take(): SharedArrayBuffer {
    return this.#free.pop() ?? new SharedArrayBuffer(0);
  }

  /** The batch that was answered to a request with memory `given`. */
  open({ batch, memory: fresh }: BatchReply, given: SharedArrayBuffer): Batch {
    const memory = fresh ?? given;
    if (fresh !== undefined) {
      this.#pins.get(given)?.[Symbol.dispose]();
      this.#pins.delete(given);
      this.#pins.set(fresh, this.#pin(fresh));
    }
    const values = mapTree(batch.values, (leaf) => {
      const { shape, dtype, offset } = leaf as PlacedTensor;
      return tensorIn(memory, offset, dtype, shape);
    }) as BatchValues;
    const opened = { ...batch, values };
    this.#inUse.set(opened, memory);
    return opened;
  }

  /** Takes a batch's memory back; does nothing for a batch of another kind. */
  recycle(batch: Batch): void {
    const memory = this.#inUse.get(batch);
    if (memory === undefined) return;
    this.#inUse.delete(batch);
    this.#free.push(memory);
  }

  [Symbol.dispose](): void {
    for (const pinned of this.#pins.values()) pinned[Symbol.dispose]();
    this.#pins.clear();
  }
}
