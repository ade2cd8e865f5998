import { fold, type Key, normal, uniform } from '../random/philox.ts';
import { at } from '../tensor/shape.ts';

/** Latent positions of a sample whose timesteps are not shifted: half a still of 64x64 pixels. */
const unshiftedPositions = 32;
/** Shifts end here, at 2048 latent positions. */
const largestShift = 8;
/** Share of timesteps that are drawn uniformly, so that the ends of the path are trained too. */
const uniformShare = 0.1;

/**
 * How far timesteps move toward noise: sqrt(positions / 32), 1 to 8. Neighbouring positions are alike, so a sample of more
 * of them is still readable at a timestep that hides one of few (Esser et al. 2024, SD3, section 5.3.2, eq. 23).
 *
 * @param positions latent positions of the sample, which do not depend on how they are cut into patches.
 */
export function timestepShift(positions: number): number {
  return Math.min(largestShift, Math.max(1, Math.sqrt(positions / unshiftedPositions)));
}

/** s t / (1 + (s - 1) t) (SD3, eq. 23): keeps 0 and 1. */
export function shiftTimestep(t: number, shift: number): number {
  return (shift * t) / (1 + (shift - 1) * t);
}

/** Undoes {@link shiftTimestep}. */
export function unshiftTimestep(t: number, shift: number): number {
  return shiftTimestep(t, 1 / shift);
}

/**
 * A timestep for one sample of training: logistic(normal), shifted for its size; one in ten uniform instead,
 * shifted too (SD3, section 3.1, logit-normal with mean 0 and deviation 1).
 *
 * @param positions latent positions of the sample.
 * @param factor on the shift. Default 1; more gives more timesteps of high noise.
 * @returns above 0, below 1.
 */
export function drawTimestep(key: Key, positions: number, factor = 1): number {
  const [choice, even] = uniform(fold(key, 'timestep'), 2);
  const logit = at(normal(fold(key, 'logit'), 1), 0);
  const t =
    (choice ?? 1) < uniformShare ? ((even ?? 0) * 2 ** 24 + 0.5) / 2 ** 24 : 1 / (1 + Math.exp(-logit));
  return shiftTimestep(t, factor * timestepShift(positions));
}

/**
 * Timesteps at which a sampler asks for velocities, descending: even before they are shifted as training shifts them, so
 * that steps are dense where the model learned most.
 *
 * @param steps at least 1.
 * @param shift from {@link timestepShift}.
 * @param from where to begin, above 0, at most 1; default 1, pure noise.
 * @returns steps + 1 timesteps, the first `from`, the last 0.
 */
export function timestepSchedule(steps: number, shift: number, from = 1): readonly number[] {
  const start = unshiftTimestep(from, shift);
  return Array.from({ length: steps + 1 }, (_, i) =>
    i === 0 ? from : shiftTimestep(start * (1 - i / steps), shift),
  );
}
