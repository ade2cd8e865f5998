import { at } from '../tensor/shape.ts';

/**
 * The velocity dx/dt at x and timestep t, of the length of x. Called one after another, with t from at most 1
 * on never rising, never at 0.
 */
export type Velocity = (x: Float32Array, t: number) => Promise<Float32Array>;

/** Follows a flow from the first timestep to the last: from noise x to data where those are 1 and 0, else a stretch of the way. */
export type Sampler = (
  velocity: Velocity,
  x: Float32Array,
  timesteps: readonly number[],
  /** Told after each step how many are done. */
  onStep?: (done: number) => void,
) => Promise<Float32Array>;

/**
 * Samplers by name, each with its order of convergence and its evaluations of the velocity for each step. Values whose
 * velocity is 0 stay as they are, bit for bit.
 */
export const samplers = { euler, heun, multistep } as const satisfies Readonly<Record<string, Sampler>>;

/** Name of a sampler. */
export type SamplerName = keyof typeof samplers;

/** The velocity evaluations of a run of `steps`, for plans. */
export function evaluationsOf(sampler: SamplerName, steps: number): number {
  return sampler === 'heun' ? 2 * steps - 1 : steps;
}

/** Euler's method: x' = x + (t' - t) v(x, t). First order, one evaluation a step. */
export function euler(...run: Parameters<Sampler>): ReturnType<Sampler> {
  return follow(run, async ({ velocity, x, t }) => velocity(x, t));
}

/**
 * Heun's method: the mean of the velocities at both ends of a step (Karras et al. 2022, EDM, algorithm 1). Second order,
 * two evaluations a step; the last step is Euler's, because the model knows no velocity at t = 0.
 */
export function heun(...run: Parameters<Sampler>): ReturnType<Sampler> {
  return follow(run, async ({ velocity, x, t, next }) => {
    const here = await velocity(x, t);
    if (next === 0) return here;
    const there = await velocity(moved(x, here, next - t), next);
    return here.map((v, i) => 0.5 * (v + (there[i] ?? 0)));
  });
}

/**
 * The two-step method of Adams and Bashforth for steps of any lengths: the velocity at the middle of a step, extrapolated
 * from this and the one before. Second order, one evaluation a step; the first step is Euler's.
 *
 * Of the same kind and cost as DPM-Solver++(2M) (Lu et al. 2022), which extrapolates the data prediction over the
 * logarithm of the signal-to-noise ratio. That is infinite at both ends of this path, where the steps that DPM-Solver
 * takes in first order decide the error: on Gaussians and mixtures of them this form was as accurate or more at equal
 * steps, and it needs no logarithms, in which JavaScript engines differ.
 */
export function multistep(...run: Parameters<Sampler>): ReturnType<Sampler> {
  let before: { readonly velocity: Float32Array; readonly length: number } | undefined;
  return follow(run, async ({ velocity, x, t, next }) => {
    const here = await velocity(x, t);
    const length = next - t;
    const last = before;
    before = { velocity: here, length };
    if (last === undefined) return here;
    const ahead = length / (2 * last.length);
    return here.map((v, i) => v + ahead * (v - (last.velocity[i] ?? 0)));
  });
}

/** A step about to be made. */
interface Step {
  readonly velocity: Velocity;
  readonly x: Float32Array;
  readonly t: number;
  readonly next: number;
}

/** Moves x along the slope that a method finds for each step. */
async function follow(
  [velocity, start, timesteps, onStep]: Parameters<Sampler>,
  slopeOf: (step: Step) => Promise<Float32Array>,
): Promise<Float32Array> {
  let x = start;
  for (let i = 0; i + 1 < timesteps.length; i++) {
    const [t, next] = [at(timesteps, i), at(timesteps, i + 1)];
    x = moved(x, await slopeOf({ velocity, x, t, next }), next - t);
    onStep?.(i + 1);
  }
  return x;
}

function moved(x: Float32Array, slope: Float32Array, length: number): Float32Array {
  return x.map((value, i) => value + length * (slope[i] ?? 0));
}
