import type { TimeHeightWidth, TransformerConfig } from '../models/transformer/config.ts';
import { patchify } from '../models/transformer/patches.ts';
import { fold, type Key, permutation, uniform } from '../random/philox.ts';
import { fromFloat32 } from '../tensor/host-tensor.ts';
import { at, elementCount, type Shape } from '../tensor/shape.ts';
import type { KeptTokens } from './recipe.ts';

/** Share of a token from which on it counts as one that shows nothing but objects: few are covered to the border. */
const filledShare = 0.25;

/**
 * How much each token of a clip counts as one that shows objects, 0 to 1; above 0 where objects cover any of it.
 * @param shape latent positions along [T', H', W'].
 * @param coverage of each position, 0 to 1.
 */
export function objectShares(
  { patch }: Pick<TransformerConfig, 'patch'>,
  shape: Shape,
  coverage: Float32Array,
): Float32Array {
  const patches = patchify({ patch }, fromFloat32('f32', [...shape, 1], coverage));
  const size = elementCount(patch);
  return Float32Array.from({ length: patches.length / size }, (_, token) => {
    const share = patches.subarray(token * size, (token + 1) * size).reduce((sum, value) => sum + value, 0);
    return Math.min(1, share / size / filledShare);
  });
}

/** Which tokens show objects: 1, the others 0. @param shares from {@link objectShares}. */
export function objectTokens(shares: Float32Array): Uint8Array {
  return Uint8Array.from(shares, (share) => (share > 0 ? 1 : 0));
}

/** Tokens that {@link drawKeptTokens} keeps for the same arguments. */
export function keptCount(key: Key, grid: TimeHeightWidth, objects: Uint8Array, kept: KeptTokens): number {
  const sought = soughtTokens(key, grid, objects, kept).reduce((sum, mark) => sum + mark, 0);
  return sought + keptOthers(objects.length - sought, kept);
}

/**
 * Draws the tokens that are kept of a clip's: all that show objects, all where decoys are, and of the others each as likely as
 * any.
 * @param key of the clip at its place in the training.
 * @param objects of all the clip's tokens, from {@link objectTokens}.
 * @returns indices, ascending.
 */
export function drawKeptTokens(
  key: Key,
  grid: TimeHeightWidth,
  objects: Uint8Array,
  kept: KeptTokens,
): Int32Array {
  const sought: number[] = [];
  const others: number[] = [];
  for (const [token, mark] of soughtTokens(key, grid, objects, kept).entries())
    (mark === 1 ? sought : others).push(token);
  const chosen = permutation(key, others.length).subarray(0, keptOthers(others.length, kept));
  return Int32Array.from([...sought, ...Array.from(chosen, (i) => at(others, i))]).sort();
}

function keptOthers(others: number, { background }: KeptTokens): number {
  return others === 0 ? 0 : Math.max(1, Math.round(background * others));
}

/** Tokens with objects, and with them what hides where those are: for a share of the clips other times, otherwise decoys. */
function soughtTokens(
  key: Key,
  grid: TimeHeightWidth,
  objects: Uint8Array,
  { swept, decoys }: KeptTokens,
): Uint8Array {
  const isSwept = swept > 0 && at(uniform(fold(key, 'swept'), 1), 0) < swept;
  return isSwept ? atAnyTime(grid, objects) : withDecoys(key, grid, objects, decoys);
}

/** Tokens in places of the frame where objects are at any time. */
function atAnyTime([, rows, columns]: TimeHeightWidth, objects: Uint8Array): Uint8Array {
  const places = new Uint8Array(rows * columns);
  for (const [token, mark] of objects.entries()) if (mark === 1) places[token % places.length] = 1;
  return objects.map((_, token) => at(places, token % places.length));
}

/**
 * Tokens with objects, and with each decoy those that would have them were the clip mirrored, played backward or neither, and
 * moved round in its frame.
 */
function withDecoys(
  key: Key,
  [frames, rows, columns]: TimeHeightWidth,
  objects: Uint8Array,
  decoys: number,
): Uint8Array {
  const sought = objects.slice();
  for (let decoy = 0; decoy < decoys; decoy++) {
    const draws = uniform(fold(fold(key, 'decoy'), decoy), 4);
    const [isBackward, isMirrored] = [at(draws, 0) < 0.5, at(draws, 1) < 0.5];
    const [down, right] = [Math.floor(at(draws, 2) * rows), Math.floor(at(draws, 3) * columns)];
    for (const [token, mark] of objects.entries()) {
      if (mark === 0) continue;
      const [frame, line] = [Math.floor(token / (rows * columns)), Math.floor(token / columns)];
      const column = isMirrored ? columns - 1 - (token % columns) : token % columns;
      const [t, h] = [isBackward ? frames - 1 - frame : frame, (line + down) % rows];
      sought[(t * rows + h) * columns + ((column + right) % columns)] = 1;
    }
  }
  return sought;
}
