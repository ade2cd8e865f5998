import type { AttentionSizes } from './token-layout.ts';

/** cuDNN's engines take keys, and queries, in tiles of this many. */
const tile = 128;

/** Parts of the queries are not made shorter than this. */
const leastQueries = 512;

/** What a tile of keys costs before its first query, in queries: fitted to measurements of 16,384 queries and 512 keys. */
const tileStart = 512;

/** Least gain that is worth the kernels around parts, in queries of one tile: about 0.03 ms on an H100. */
const leastGain = 1024;

/** Fewest keys for which the forward pass is cut: at 16,376 it gains 8%, at 32,760 11%. */
const leastKeys = 16_000;

/** Fewest queries and keys whose gradient is faster in two parts though tiles are many: by 5 to 6% at 16,384. */
const longSequence = 16_000;

/** How an attention is cut into runs of cuDNN. The result is the same; what is fastest depends on sizes and GPU. */
export interface AttentionSplits {
  /** How many of the last keys the forward pass takes in a run of their own; 0: none. */
  readonly lateKeys: (sizes: AttentionSizes) => number;
  /** In how many parts, a divisor of their number, the gradient takes the queries of each row; 1: all at once. */
  readonly queryParts: (sizes: AttentionSizes) => number;
}

/** The fastest splits for a GPU with so many multiprocessors. */
export function fastestSplits(multiprocessors: number): AttentionSplits {
  return { lateKeys, queryParts: (sizes) => queryParts(sizes, multiprocessors) };
}

/** The forward engine is slower throughout when keys do not fill its last tile: those are left to another run. */
function lateKeys({ keys, segments }: AttentionSizes): number {
  const late = keys % tile;
  // A single key is none for cuDNN.
  return segments === undefined && keys >= leastKeys && late > 1 ? late : 0;
}

/**
 * The backward engine gives each multiprocessor a tile of keys and all queries. Where there are few tiles, parts of the
 * queries beside each other keep the others busy. The time is that of the tiles one multiprocessor works off in turn.
 */
function queryParts(
  { rows, queries, keys, heads, segments }: AttentionSizes,
  multiprocessors: number,
): number {
  const tiles = rows * heads * Math.ceil(keys / tile);
  if (segments !== undefined) return 1;
  if (tiles >= multiprocessors)
    return Math.min(queries, keys) >= longSequence && queries % (2 * tile) === 0 ? 2 : 1;
  const cost = (parts: number) =>
    Math.ceil((tiles * parts) / multiprocessors) * (queries / parts + tileStart);
  let best = 1;
  for (let parts = 2; queries / parts >= leastQueries; parts++)
    if (queries % (parts * tile) === 0 && cost(parts) < cost(best)) best = parts;
  return cost(1) - cost(best) > leastGain ? best : 1;
}
