import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { at, GraphError } from '../tensor/shape.ts';

/** Angles of a sequence's tokens, f32 [1, S, head size / 2] each. */
export interface RotaryAngles {
  readonly cos: HostTensor<'f32'>;
  readonly sin: HostTensor<'f32'>;
}

/**
 * Cosines and sines for rotary positions over several axes (Su et al. 2021, section 3.4.2, one group of channels per
 * axis). Channel pair i of an axis with n pairs turns by position / base^(i/n).
 *
 * @param positions one position per token, each with a coordinate per axis, such as [t, h, w]; fractions are allowed.
 * @param pairs channel pairs given to each axis; they add up to head size / 2.
 * @param base wavelength of the slowest pair over 2 pi; default 10,000.
 * @throws GraphError when a position has another number of coordinates.
 */
export function rotaryAngles(
  positions: readonly (readonly number[])[],
  pairs: readonly number[],
  base = 10_000,
): RotaryAngles {
  const half = pairs.reduce((sum, count) => sum + count, 0);
  const [cos, sin] = [new Float32Array(positions.length * half), new Float32Array(positions.length * half)];
  const turns = pairs.map((count) => turnsOf(count, base));
  positions.forEach((position, token) => {
    if (position.length !== pairs.length) {
      throw new GraphError(
        `rotary position ${token} has ${position.length} coordinates, there are ${pairs.length} axes`,
      );
    }
    let channel = token * half;
    for (const [axis, count] of pairs.entries()) {
      const turn = at(turns, axis)(at(position, axis));
      cos.set(turn.cos, channel);
      sin.set(turn.sin, channel);
      channel += count;
    }
  });
  const shape = [1, positions.length, half];
  return { cos: fromFloat32('f32', shape, cos), sin: fromFloat32('f32', shape, sin) };
}

/** Cosines and sines of one axis by coordinate, each computed once: tokens by the thousand share a few. */
function turnsOf(
  count: number,
  base: number,
): (coordinate: number) => { readonly cos: Float32Array; readonly sin: Float32Array } {
  const known = new Map<number, { readonly cos: Float32Array; readonly sin: Float32Array }>();
  return (coordinate) => {
    const before = known.get(coordinate);
    if (before !== undefined) return before;
    const angles = Array.from({ length: count }, (_, i) => coordinate / base ** (i / count));
    const turn = { cos: Float32Array.from(angles, Math.cos), sin: Float32Array.from(angles, Math.sin) };
    known.set(coordinate, turn);
    return turn;
  };
}
