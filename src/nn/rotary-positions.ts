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
  positions.forEach((position, token) => {
    if (position.length !== pairs.length) {
      throw new GraphError(
        `rotary position ${token} has ${position.length} coordinates, there are ${pairs.length} axes`,
      );
    }
    let channel = token * half;
    pairs.forEach((count, axis) => {
      for (let i = 0; i < count; i++, channel++) {
        const angle = at(position, axis) / base ** (i / count);
        cos[channel] = Math.cos(angle);
        sin[channel] = Math.sin(angle);
      }
    });
  });
  const shape = [1, positions.length, half];
  return { cos: fromFloat32('f32', shape, cos), sin: fromFloat32('f32', shape, sin) };
}
