/** `x`, but at least `low` and at most `high`; `low` where they cross. */
export function clamp(x: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, x));
}

/** `x`, but at least 0 and at most 1. */
export function clamp01(x: number): number {
  return Math.max(0, Math.min(1, x));
}

/** `a` for t = 0, `b` for t = 1. */
export function mix(a: number, b: number, t: number): number {
  return a + (b - a) * t;
}

/** A cubic from 0 to 1 that is level at both ends; `t` from 0 to 1. */
export function smooth(t: number): number {
  return t * t * (3 - 2 * t);
}

/** `x` less a multiple of `period`: at least 0 and below `period`. */
export function wrap(x: number, period: number): number {
  return x - period * Math.floor(x / period);
}
