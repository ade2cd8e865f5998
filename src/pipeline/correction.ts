import type { Sampler, Velocity } from '../diffusion/samplers.ts';
import { at } from '../tensor/shape.ts';

/** How a sampling is corrected on its way down. */
export interface Correction {
  /** Which values go on from the better estimate; the others stay as they are. */
  readonly where: (index: number) => boolean;
  /** An estimate of the data to go on from, in place of the given one and of the same length. */
  readonly better: (estimate: Float32Array) => Promise<Float32Array>;
}

/**
 * Timesteps at which a sampling is corrected, each at the first step that is not above it: early, because where objects are
 * is settled first, and again and again, because in between the model draws back to its own estimate. Not below 0.3, where
 * little can still move. `docs/experiments.md` has what was tried.
 */
const correctedAt = [0.9, 0.8, 0.7, 0.6, 0.5, 0.3] as const;

/** Indices into a schedule at which a sampling is corrected, ascending; not at timestep 0, where nothing follows. */
export function correctionsOf(schedule: readonly number[]): readonly number[] {
  const indices = correctedAt.map((most) => schedule.findIndex((t) => t <= most));
  return [...new Set(indices)].filter((index) => at(schedule, index) > 0);
}

/**
 * A sampler that corrects its estimate of the data at {@link correctionsOf} its timesteps, and between them samples as the
 * given one does, which begins anew each time. Each correction is one more evaluation, and told as one more step.
 */
export function corrected(sampler: Sampler, correction: Correction): Sampler {
  return async (velocity, start, timesteps, onStep) => {
    let [x, begin, told] = [start, 0, 0];
    const tell = () => onStep?.(++told);
    for (const index of correctionsOf(timesteps)) {
      x = await sampler(velocity, x, timesteps.slice(begin, index + 1), tell);
      x = await correctedOnce(velocity, x, at(timesteps, index), correction);
      tell();
      begin = index;
    }
    return await sampler(velocity, x, timesteps.slice(begin), tell);
  };
}

/**
 * On the path x = (1 - t) data + t noise, of velocity noise - data, both are known by x and the velocity. The values in
 * question go on from the better data with the same noise.
 */
async function correctedOnce(
  velocity: Velocity,
  x: Float32Array,
  t: number,
  { where, better }: Correction,
): Promise<Float32Array> {
  const v = await velocity(x, t);
  const data = await better(x.map((value, i) => value - t * (v[i] ?? 0)));
  return x.map((value, i) => {
    if (!where(i)) return value;
    const noise = value + (1 - t) * (v[i] ?? 0);
    return (1 - t) * (data[i] ?? 0) + t * noise;
  });
}
