import { roundUp } from './device-memory.ts';

/** A piece of memory that a program needs from one step to another, both included. */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Where each piece lies in one block of memory, and how large that must be. */
export interface MemoryPlan {
  readonly offsets: readonly number[];
  readonly bytes: number;
}

/**
 * Gives pieces that are never needed at the same time the same memory: largest first, each at the smallest gap that it
 * fits in between those that live while it does (Pisarchyk & Lee 2020, greedy by size).
 */
export function planMemory(lifetimes: readonly Lifetime[]): MemoryPlan {
  const offsets = new Array<number>(lifetimes.length).fill(0);
  const order = lifetimes.map((lifetime, index) => ({ ...lifetime, index, size: roundUp(lifetime.bytes) }));
  order.sort((a, b) => b.size - a.size || a.index - b.index);
  /** Placed pieces, by offset. */
  const placed: Piece[] = [];
  let bytes = 0;
  for (const { size, first, last, index } of order) {
    if (size === 0) continue;
    const offset = smallestGap(placed, size, first, last);
    offsets[index] = offset;
    bytes = Math.max(bytes, offset + size);
    const after = placed.findIndex((other) => other.offset > offset);
    placed.splice(after < 0 ? placed.length : after, 0, { offset, size, first, last });
  }
  return { offsets, bytes };
}

interface Piece {
  readonly offset: number;
  readonly size: number;
  readonly first: number;
  readonly last: number;
}

/**
 * Start of the smallest gap of at least `size` bytes between those pieces, in order of their offsets, that are needed at some
 * step from `first` to `last`, else their end.
 */
function smallestGap(pieces: readonly Piece[], size: number, first: number, last: number): number {
  let [best, bestGap, end] = [-1, Number.POSITIVE_INFINITY, 0];
  for (const piece of pieces) {
    if (piece.first > last || piece.last < first) continue;
    const gap = piece.offset - end;
    if (gap >= size && gap < bestGap) [best, bestGap] = [end, gap];
    end = Math.max(end, piece.offset + piece.size);
  }
  return best < 0 ? end : best;
}
