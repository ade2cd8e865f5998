import { clamp, smooth, wrap } from '../data/worlds/numeric.ts';
import type { Direction, MotionKind, Turn } from '../data/worlds/scene.ts';

/** Where an object is at one time: seconds, and stage units (half the frame's shorter side) from the frame's centre. */
export interface PathPoint {
  readonly time: number;
  readonly x: number;
  readonly y: number;
  readonly radius: number;
}

/** What an object was seen to do. */
export interface MotionSeen {
  readonly kind: Exclude<MotionKind, 'follow'>;
  /** Of what slides or bounces along; 'in place' for a bounce that stays. */
  readonly direction?: Direction | 'in place';
  /** Of what orbits or spins. */
  readonly turn?: Turn;
}

/** An object of which this share of frames lack it blinks. */
const blinkShare = 0.12;
/** Sizes at the end, relative to the start, from which on it has grown or shrunk. */
const grown = 1.32;
const shrunk = 0.76;
/** What moves less than this all in all, in stage units, stays where it is. */
const stays = 0.14;
/** The centre of what grows or shrinks on the ground goes up or down by no more than this. */
const footReach = 0.38;
/** What is measured of a place is about so far off, in stage units. */
const accuracy = 0.03;
/** Least way of a bounce that goes along, and least swing of an orbit. */
const leastWay = 0.25;
const leastSwing = 0.07;

/** Whether a path stays where it is, give or take what measuring does. */
export function staysInPlace(path: readonly PathPoint[]): boolean {
  return rangeOf(path.map(({ x }) => x)) < stays && rangeOf(path.map(({ y }) => y)) < stays;
}

/**
 * The motion that a path is most like, but for spinning, which a path does not show: what stays is `still`.
 *
 * @param path of the frames that show the object.
 * @param frames how many frames the video has.
 * @param seconds how long it lasts.
 * @param hidden frames without the object in which something else hides its place.
 */
export function fitMotion(
  path: readonly PathPoint[],
  frames: number,
  seconds: number,
  hidden = 0,
): MotionSeen {
  const inPlace = staysInPlace(path);
  const growth = growthOf(path);
  const missing = frames - hidden - path.length;
  if (missing >= (inPlace ? 1 : 2) * blinkShare * frames && !fades(path, frames, seconds, growth, missing))
    return { kind: 'blink' };
  const keepsFoot =
    rangeOf(path.map(({ x }) => x)) < 2 * stays && rangeOf(path.map(({ y }) => y)) < footReach;
  if (keepsFoot && growth > grown) return { kind: 'grow' };
  if (keepsFoot && growth < shrunk) return { kind: 'shrink' };
  if (inPlace) return { kind: 'still' };
  const fits = [
    slide(path),
    fall(path),
    rise(path, seconds),
    bounce(path, false),
    bounce(path, true),
    orbit(path),
  ];
  let best: PathFit | undefined;
  for (const fit of fits) if (fit !== undefined && (best === undefined || fit.cost < best.cost)) best = fit;
  return best?.motion ?? { kind: 'still' };
}

/** Whether an object is missing only while it is too small to be seen: before it has grown, or after it has shrunk. */
function fades(
  path: readonly PathPoint[],
  frames: number,
  seconds: number,
  growth: number,
  missing: number,
): boolean {
  const perFrame = frames / seconds;
  const before = Math.round((path[0]?.time ?? 0) * perFrame);
  const after = frames - 1 - Math.round((path.at(-1)?.time ?? 0) * perFrame);
  return (growth > grown && before >= missing - 1) || (growth < shrunk && after >= missing - 1);
}

interface PathFit {
  readonly motion: MotionSeen;
  /** Squared differences in units of accuracy, and what the freedom of the model costs (BIC, Schwarz 1978). */
  readonly cost: number;
}

/** From a twentieth of the values to as far from the other end. */
function rangeOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const skip = Math.floor(sorted.length / 20);
  return (sorted[sorted.length - 1 - skip] ?? 0) - (sorted[skip] ?? 0);
}

/** Median size of the last sixth over that of the first. */
function growthOf(path: readonly PathPoint[]): number {
  const count = Math.max(1, Math.round(path.length / 6));
  const median = (points: readonly PathPoint[]) =>
    points.map(({ radius }) => radius).sort((a, b) => a - b)[Math.floor(points.length / 2)] ?? 1;
  return median(path.slice(-count)) / Math.max(1e-6, median(path.slice(0, count)));
}

type Basis = readonly ((point: PathPoint) => number)[];

const constant: Basis = [() => 1];
const straight: Basis = [() => 1, ({ time }) => time];

/** Least squares of values over basis functions: coefficients, and the sum of squares, each limited, in accuracies. */
function leastSquares(path: readonly PathPoint[], axis: 'x' | 'y', basis: Basis) {
  const rows = path.map((point) => basis.map((f) => f(point)));
  const normal = basis.map((_, i) => [
    ...basis.map((_, j) => sum(rows.map((row) => (row[i] ?? 0) * (row[j] ?? 0))) + (i === j ? 1e-9 : 0)),
    sum(rows.map((row, k) => (row[i] ?? 0) * (path[k]?.[axis] ?? 0))),
  ]);
  const coefficients = solved(normal);
  const squares = sum(
    rows.map((row, k) => {
      const modelled = sum(row.map((value, i) => value * (coefficients[i] ?? 0)));
      return Math.min(40, (((path[k]?.[axis] ?? 0) - modelled) / accuracy) ** 2);
    }),
  );
  return { coefficients, squares };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Gaussian elimination of [A | b]. */
function solved(rows: number[][]): number[] {
  const n = rows.length;
  for (let i = 0; i < n; i++) {
    const pivot = rows.slice(i).reduce((a, b) => (Math.abs(b[i] ?? 0) > Math.abs(a[i] ?? 0) ? b : a));
    const at = rows.indexOf(pivot);
    const current = rows[i];
    if (current === undefined) continue;
    rows[at] = current;
    rows[i] = pivot;
    for (const [j, row] of rows.entries()) {
      if (j === i) continue;
      const factor = (row[i] ?? 0) / (pivot[i] ?? 1);
      rows[j] = row.map((value, k) => value - factor * (pivot[k] ?? 0));
    }
  }
  return rows.map((row, i) => (row[n] ?? 0) / (row[i] ?? 1));
}

function costOf(path: readonly PathPoint[], squares: number, freedom: number): number {
  return squares + 2 * freedom * Math.log(path.length);
}

function slide(path: readonly PathPoint[]): PathFit {
  const x = leastSquares(path, 'x', straight);
  const y = leastSquares(path, 'y', constant);
  const direction = (x.coefficients[1] ?? 0) > 0 ? 'right' : 'left';
  return { motion: { kind: 'slide', direction }, cost: costOf(path, x.squares + y.squares, 3) };
}

function fall(path: readonly PathPoint[]): PathFit | undefined {
  const x = leastSquares(path, 'x', constant);
  return cheapest(
    [0.4, 0.5, 0.6, 0.75, 0.9, 1.05, 1.2, 1.3, 1.45, 1.6, 1.8].map((end) => {
      const y = leastSquares(path, 'y', [() => 1, ({ time }) => clamp(time / end, 0, 1) ** 2]);
      if ((y.coefficients[1] ?? 0) < 0) return undefined;
      return { motion: { kind: 'fall' }, cost: costOf(path, x.squares + y.squares, 4) };
    }),
  );
}

function rise(path: readonly PathPoint[], seconds: number): PathFit | undefined {
  const x = leastSquares(path, 'x', constant);
  return cheapest(
    [0.6, 0.75, 0.9, 1, 1.15].map((share) => {
      const eased = ({ time }: PathPoint) => smooth(clamp(time / (share * seconds), 0, 1));
      const y = leastSquares(path, 'y', [() => 1, eased]);
      if ((y.coefficients[1] ?? 0) > 0) return undefined;
      return { motion: { kind: 'rise' }, cost: costOf(path, x.squares + y.squares, 4) };
    }),
  );
}

/** Part of a bounce that is spent on the ground. */
const contact = 0.18;

function bounce(path: readonly PathPoint[], along: boolean): PathFit | undefined {
  const x = leastSquares(path, 'x', along ? straight : constant);
  const first = path[0]?.time ?? 0;
  const last = path.at(-1)?.time ?? 0;
  const way = (x.coefficients[1] ?? 0) * (last - first);
  if (along && Math.abs(way) < leastWay) return undefined;
  const direction = along ? (way > 0 ? 'right' : 'left') : 'in place';
  const trials: (PathFit | undefined)[] = [];
  for (const period of [0.58, 0.66, 0.75, 0.87, 1, 1.15, 1.32, 1.5, 1.7]) {
    for (let phase = 0; phase < 1; phase += 1 / 20) {
      const lift = ({ time }: PathPoint) => {
        const flight = wrap(time / period + phase, 1) / (1 - contact);
        return flight < 1 ? 4 * flight * (1 - flight) : 0;
      };
      const y = leastSquares(path, 'y', [() => 1, lift]);
      // Upwards is towards smaller y.
      if ((y.coefficients[1] ?? 0) > -leastWay / 2) continue;
      const cost = costOf(path, x.squares + y.squares, along ? 6 : 5);
      trials.push({ motion: { kind: 'bounce', direction }, cost });
    }
  }
  return cheapest(trials);
}

function orbit(path: readonly PathPoint[]): PathFit | undefined {
  return cheapest(
    [1.2, 1.4, 1.6, 1.9, 2.2, 2.5, 2.9, 3.4, 3.9].map((period) => {
      const speed = (2 * Math.PI) / period;
      const circle: Basis = [
        () => 1,
        ({ time }) => Math.cos(speed * time),
        ({ time }) => Math.sin(speed * time),
      ];
      const x = leastSquares(path, 'x', circle);
      const y = leastSquares(path, 'y', circle);
      const [, a = 0, b = 0] = x.coefficients;
      const [, c = 0, d = 0] = y.coefficients;
      const [wide, high] = [Math.hypot(a, b), Math.hypot(c, d)];
      // Where the two swings keep step it is a line that is gone to and fro, not an ellipse.
      const area = (a * d - b * c) / Math.max(1e-9, wide * high);
      if (Math.min(wide, high) < leastSwing || Math.abs(area) < 0.6 || Math.max(wide, high) > 1)
        return undefined;
      const turn = area > 0 ? 'clockwise' : 'counterclockwise';
      return { motion: { kind: 'orbit', turn }, cost: costOf(path, x.squares + y.squares, 7) };
    }),
  );
}

function cheapest(fits: readonly (PathFit | undefined)[]): PathFit | undefined {
  let best: PathFit | undefined;
  for (const fit of fits) if (fit !== undefined && (best === undefined || fit.cost < best.cost)) best = fit;
  return best;
}

/** Seconds of a full turn that are tried for spinning. */
const spinPeriods = [1.2, 1.4, 1.6, 1.85, 2.2, 2.6, 3, 3.5, 4, 4.7];
/** Spinning must explain what is seen so much better than any angle that stays. */
const spinShare = 0.8;

/**
 * Whether an object turns, and which way: the sense in which the errors of its drawings at the angles of an even turn are
 * least. Undefined when it rests at one angle as likely.
 *
 * @param errors for each frame its time in seconds and the error at each of evenly spaced angles of a full turn clockwise.
 */
export function fitSpin(
  errors: readonly { readonly time: number; readonly atAngle: readonly number[] }[],
): Turn | undefined {
  const angles = errors[0]?.atAngle.length ?? 0;
  const meanError = (turnsPerSecond: number, phase: number) =>
    sum(
      errors.map(({ time, atAngle }) => {
        const place = wrap(time * turnsPerSecond + phase, 1) * angles;
        const before = Math.floor(place) % angles;
        const t = place - Math.floor(place);
        return (1 - t) * (atAngle[before] ?? 0) + t * (atAngle[(before + 1) % angles] ?? 0);
      }),
    ) / errors.length;
  const least = (turnsPerSecond: number) => {
    let best = Number.POSITIVE_INFINITY;
    for (let phase = 0; phase < angles; phase += 0.5) {
      best = Math.min(best, meanError(turnsPerSecond, phase / angles));
    }
    return best;
  };
  const resting = least(0);
  const clockwise = Math.min(...spinPeriods.map((period) => least(1 / period)));
  const counterclockwise = Math.min(...spinPeriods.map((period) => least(-1 / period)));
  if (Math.min(clockwise, counterclockwise) > spinShare * resting) return undefined;
  return clockwise < counterclockwise ? 'clockwise' : 'counterclockwise';
}
