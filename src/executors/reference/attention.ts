import { at, elementCount, type Shape, type TensorType } from '../../tensor/shape.ts';
import type { Attributes } from '../../tensor/vocabulary.ts';
import { positionOf, type Values } from './values.ts';

/** Softmax attention, one query at a time. */
export function attention(
  [q, k, v, segments]: readonly [Values, Values, Values, Values?],
  { scale }: Attributes<'attention'>,
  results: readonly TensorType[],
): [Float64Array, Float64Array] {
  const y = new Float64Array(elementCount(at(results, 0).shape));
  const logSums = new Float64Array(elementCount(at(results, 1).shape));
  forEachQuery(q.shape, (b, s, h, queryAt) => {
    const keys = visibleKeys(k.shape, segments, b, s);
    if (keys.length === 0) return;
    const scores = keys.map((t) => scale * dot(q, queryAt, k, rowAt(k.shape, b, t, h)));
    const logSum = logSumExp(scores);
    logSums[positionOf([b, h, s], at(results, 1).shape)] = logSum;
    keys.forEach((t, i) => {
      addScaled(y, queryAt, v, rowAt(v.shape, b, t, h), Math.exp(at(scores, i) - logSum));
    });
  });
  return [y, logSums];
}

/** Gradients of {@link attention}: dP = dy v^T, dS = P (dP - dy . y), dq = scale dS k, dk = scale dS^T q, dv = P^T dy. */
export function attentionGradient(
  [q, k, v, y, logSums, dy, segments]: readonly [Values, Values, Values, Values, Values, Values, Values?],
  { scale }: Attributes<'attentionGradient'>,
): [Float64Array, Float64Array, Float64Array] {
  const [dq, dk, dv] = [
    new Float64Array(q.data.length),
    new Float64Array(k.data.length),
    new Float64Array(v.data.length),
  ];
  forEachQuery(q.shape, (b, s, h, queryAt) => {
    const logSum = at(logSums.data, positionOf([b, h, s], logSums.shape));
    const total = dot(dy, queryAt, y, queryAt);
    for (const t of visibleKeys(k.shape, segments, b, s)) {
      const keyAt = rowAt(k.shape, b, t, h);
      const p = Math.exp(scale * dot(q, queryAt, k, keyAt) - logSum);
      const ds = scale * p * (dot(dy, queryAt, v, keyAt) - total);
      addScaled(dq, queryAt, k, keyAt, ds);
      addScaled(dk, keyAt, q, queryAt, ds);
      addScaled(dv, keyAt, dy, queryAt, p);
    }
  });
  return [dq, dk, dv];
}

/** Rotates each channel pair (a, b) to (a cos - b sin, a sin + b cos). */
export function rotary(
  [x, cos, sin]: readonly [Values, Values, Values],
  { interleaved }: Attributes<'rotary'>,
): [Float64Array] {
  const half = at(x.shape, 3) / 2;
  const y = new Float64Array(x.data.length);
  forEachQuery(x.shape, (b, s, _, start) => {
    const anglesAt = positionOf([at(cos.shape, 0) === 1 ? 0 : b, s, 0], cos.shape);
    for (let i = 0; i < half; i++) {
      const [first, second] = interleaved
        ? [start + 2 * i, start + 2 * i + 1]
        : [start + i, start + i + half];
      const [c, d] = [at(cos.data, anglesAt + i), at(sin.data, anglesAt + i)];
      y[first] = at(x.data, first) * c - at(x.data, second) * d;
      y[second] = at(x.data, first) * d + at(x.data, second) * c;
    }
  });
  return [y];
}

function forEachQuery(
  [B = 0, S = 0, H = 0, D = 0]: Shape,
  visit: (b: number, s: number, h: number, start: number) => void,
): void {
  for (let b = 0; b < B; b++)
    for (let s = 0; s < S; s++) for (let h = 0; h < H; h++) visit(b, s, h, ((b * S + s) * H + h) * D);
}

/** Keys that query s may attend to: all, or those of its own segment. */
function visibleKeys(shape: Shape, segments: Values | undefined, b: number, s: number): number[] {
  const keys = Array.from({ length: at(shape, 1) }, (_, t) => t);
  if (segments === undefined) return keys;
  const count = at(segments.shape, 1);
  const offsets = segments.data.subarray(b * count, (b + 1) * count);
  // The last segment that starts at or before s; segments may be empty.
  const segment = offsets.findLastIndex((offset) => offset <= s);
  if (segment < 0 || segment >= count - 1) return [];
  return keys.filter((t) => t >= at(offsets, segment) && t < at(offsets, segment + 1));
}

function rowAt(shape: Shape, b: number, t: number, h: number): number {
  return positionOf([b, t, h, 0], shape);
}

function dot(a: Values, aAt: number, b: Values, bAt: number): number {
  let total = 0;
  for (let d = 0; d < at(a.shape, 3); d++) total += at(a.data, aAt + d) * at(b.data, bAt + d);
  return total;
}

function addScaled(
  target: Float64Array,
  targetAt: number,
  source: Values,
  sourceAt: number,
  factor: number,
): void {
  for (let d = 0; d < at(source.shape, 3); d++)
    target[targetAt + d] = at(target, targetAt + d) + factor * at(source.data, sourceAt + d);
}

function logSumExp(scores: readonly number[]): number {
  const maximum = Math.max(...scores);
  return maximum + Math.log(scores.reduce((total, score) => total + Math.exp(score - maximum), 0));
}
