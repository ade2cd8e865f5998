import type { TransformerConfig } from '../models/transformer/config.ts';
import { patchify } from '../models/transformer/patches.ts';
import { type Key, permutation } from '../random/philox.ts';
import { fromFloat32 } from '../tensor/host-tensor.ts';
import { at, elementCount, type Shape } from '../tensor/shape.ts';

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

/** Tokens that show objects. @param shares from {@link objectShares}. */
export function countObjectTokens(shares: Float32Array): number {
  return shares.reduce((count, share) => count + (share > 0 ? 1 : 0), 0);
}

/**
 * Tokens that are kept of a clip's.
 * @param tokens all of the clip's.
 * @param withObjects how many of them show objects.
 * @param background share of the others that are kept, above 0, at most 1.
 */
export function keptCount(tokens: number, withObjects: number, background: number): number {
  const others = tokens - withObjects;
  return withObjects + (others === 0 ? 0 : Math.max(1, Math.round(background * others)));
}

/**
 * Draws the tokens that are kept: all that show objects, and of the others each as likely as any.
 * @param shares of all the clip's tokens, from {@link objectShares}.
 * @param background as of {@link keptCount}, which says how many there are.
 * @returns indices, ascending.
 */
export function drawKeptTokens(key: Key, shares: Float32Array, background: number): Int32Array {
  const withObjects: number[] = [];
  const others: number[] = [];
  for (const [token, share] of shares.entries()) (share > 0 ? withObjects : others).push(token);
  const count = keptCount(shares.length, withObjects.length, background) - withObjects.length;
  const chosen = permutation(key, others.length).subarray(0, count);
  return Int32Array.from([...withObjects, ...Array.from(chosen, (i) => at(others, i))]).sort();
}
