import koffi from 'koffi';

/** A stretch of host memory of the pool. */
export interface Block {
  readonly buffer: ArrayBuffer;
  /** Where the block begins in `buffer`. */
  readonly offset: number;
  /** The same as C sees it. */
  readonly address: bigint;
  /** Its size class: usable bytes. */
  readonly size: number;
}

/** Blocks begin at cache lines, which vector instructions read whole. */
const alignment = 64;

/** Share of what was once in use that may be spare beside it: the same run over and over then finds all that it takes. */
const slack = 1 / 16;

/**
 * Host memory that is used again instead of given back to the system: touching a fresh page costs more than computing
 * what is written to it. Blocks come in size classes, and one that is a little too large serves before a new one is made: a
 * training step that fills the memory of activations with gradients finds both in the next step. The pool holds little more than was once in use at the same
 * time: before it grows beyond that, spare blocks go, those longest unused first.
 */
export class MemoryPool {
  /** Spare blocks by size; a set keeps the order in which they became spare. */
  private readonly spare = new Map<number, Block[]>();
  private readonly order = new Set<Block>();
  private used = 0;
  private kept = 0;
  private mostUsed = 0;

  /** A block of at least so many bytes, of any contents. */
  take(byteLength: number): Block {
    const wanted = sizeClass(byteLength);
    const known = this.spareOf(wanted);
    const size = known?.size ?? wanted;
    this.used += size;
    this.mostUsed = Math.max(this.mostUsed, this.used);
    if (known !== undefined) {
      this.order.delete(known);
      this.kept -= size;
      return known;
    }
    this.shrink(this.mostUsed * (1 + slack) - this.used);
    return allocate(wanted);
  }

  /** Gives a block back. */
  give(block: Block): void {
    this.used -= block.size;
    this.kept += block.size;
    this.order.add(block);
    const others = this.spare.get(block.size);
    if (others === undefined) this.spare.set(block.size, [block]);
    else others.push(block);
  }

  /** Gives all spare blocks back to the system. */
  trim(): void {
    this.shrink(0);
    this.mostUsed = this.used;
  }

  /** A spare block of a size, or else the smallest that is at most half again as large. */
  private spareOf(size: number): Block | undefined {
    const fitting = [...this.spare]
      .filter(([other, blocks]) => blocks.length > 0 && other >= size && other <= 1.5 * size)
      .map(([other]) => other);
    return fitting.length === 0 ? undefined : this.spare.get(Math.min(...fitting))?.pop();
  }

  private shrink(limit: number): void {
    for (const block of this.order) {
      if (this.kept <= limit) return;
      this.order.delete(block);
      this.kept -= block.size;
      const others = this.spare.get(block.size) ?? [];
      others.splice(others.indexOf(block), 1);
      free(block);
    }
  }
}

/** Eight sizes to the doubling, so that at most an eighth is wasted and near sizes share blocks. */
function sizeClass(byteLength: number): number {
  if (byteLength <= 8 * alignment) return Math.max(1, Math.ceil(byteLength / alignment)) * alignment;
  const step = 2 ** (Math.floor(Math.log2(byteLength - 1)) - 3);
  return Math.ceil(byteLength / step) * step;
}

function allocate(size: number): Block {
  const buffer = new ArrayBuffer(size + alignment);
  const start = koffi.address(new Uint8Array(buffer));
  const offset = Number(-start & BigInt(alignment - 1));
  return { buffer, offset, address: start + BigInt(offset), size };
}

/** Gives memory back now; garbage collection would do it some time. */
function free({ buffer }: Block): void {
  buffer.transfer(0);
}
