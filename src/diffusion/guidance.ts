import type { Velocity } from './samplers.ts';

/** How strongly, and where on the path, a prompt is followed. */
export interface Guidance {
  /** 1 follows the conditional velocity; more exaggerates what distinguishes it; 0 follows the unconditional one. */
  readonly scale: number;
  /** Timesteps [low, high] between which guidance acts; elsewhere the conditional velocity is followed. */
  readonly interval: readonly [low: number, high: number];
  /** How much of what `scale` is above 1 each value of x gets, 0 to 1. Default all of it. */
  readonly shares?: Float32Array | undefined;
}

/**
 * Classifier-free guidance (Ho & Salimans 2022, eq. 6) in an interval of timesteps (Kynkäänniemi et al. 2024):
 * v = u + scale (c - u), with c the velocity under the prompt and u that under the negative or empty prompt. Where only c
 * matters, u is not computed. With shares s the scale is 1 + s (scale - 1).
 *
 * @param unconditional velocity under the negative prompt, or the empty one.
 */
export function guided(
  conditional: Velocity,
  unconditional: Velocity,
  { scale, interval: [low, high], shares }: Guidance,
): Velocity {
  const scaleAt = (i: number) => (shares === undefined ? scale : 1 + (shares[i] ?? 1) * (scale - 1));
  return async (x, t) => {
    if (scale === 1 || t < low || t > high) return conditional(x, t);
    const [c, u] = await Promise.all([conditional(x, t), unconditional(x, t)]);
    return u.map((value, i) => value + scaleAt(i) * ((c[i] ?? 0) - value));
  };
}
