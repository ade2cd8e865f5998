import { at, type Shape, type TensorType } from '../../tensor/shape.ts';
import type { Emitter, Lowered, Value } from './emitter.ts';
import { batchedMatmul } from './matmul.ts';
import type { OnnxAttribute } from './model.ts';

/**
 * Attention: ONNX's own operator where nothing else is asked of it and all scores may be held at once, in float32; else ours or
 * composed.
 */
export function lowerAttention(
  emit: Emitter,
  [q, k, v, segments]: readonly [Value, Value, Value, Value?],
  { attributes: { scale }, results, used }: Lowered<'attention'>,
): readonly (Value | undefined)[] {
  const [B, S, H, D] = sizes4(q.shape);
  const fits = 4 * B * H * S * at(k.shape, 1) <= emit.scoreBytes;
  const isPlain = segments === undefined && !used[1] && scale > 0;
  if (isPlain && fits && emit.device !== 'webgpu' && !emit.roundsProducts) {
    // The three-axis form takes tokens x (heads * size) as our tensors are laid out; no transposition.
    const flat = [q, k, v].map((x) => emit.reshape(x, [B, at(x.shape, 1), H * D]));
    const y = emit.op(
      'Attention',
      flat,
      { shape: [B, S, H * D], dtype: q.dtype },
      { q_num_heads: H, kv_num_heads: H, scale: { float: scale } },
    );
    return [emit.reshape(y, q.shape), undefined];
  }
  if (emit.ownOperators && !used[1]) {
    const operands = [q, k, v, ...offsetsOf(emit, segments)];
    return [
      ...emit.own(
        'Attention',
        operands,
        [{ shape: q.shape, dtype: q.dtype }],
        ownAttributes(emit, scale, segments),
      ),
      undefined,
    ];
  }
  const heads = { q: headsFirst(emit, q), k: headsFirst(emit, k), v: headsFirst(emit, v) };
  const mask = segments && segmentMask(emit, segments, S);
  const parts = partsOf(emit.scoreBytes, B, S, H, at(k.shape, 1)).map((rows) =>
    rows.map((part) => {
      const [qPart, kPart, vPart] = [
        take(emit, heads.q, part),
        takeBatch(emit, heads.k, part),
        takeBatch(emit, heads.v, part),
      ];
      const scores = maskedScores(emit, qPart, kPart, scale, mask && biasOf(emit, mask, part));
      const probabilities = emit.op('Softmax', [scores], scores, { axis: -1 });
      const y = batchedMatmul(emit, probabilities, vPart, {}, qPart);
      return { y, logSum: used[1] ? logSumOf(emit, scores, probabilities) : undefined };
    }),
  );
  const y = headsFirst(
    emit,
    joined(emit, parts, ({ y: part }) => part),
  );
  const yMasked = mask ? masked(emit, y, mask.valid, [B, S, 1, 1]) : y;
  if (!used[1]) return [yMasked, undefined];
  const logSum = emit.reshape(
    joined(emit, parts, ({ logSum: part, y: fallback }) => part ?? fallback),
    at(results, 1).shape,
  );
  return [yMasked, mask ? masked(emit, logSum, mask.valid, [B, 1, S]) : logSum];
}

/**
 * Gradient of attention, scores recomputed part by part: dP = dy v^T, dS = P (dP - dy . y), dq = scale dS k,
 * dk = scale dS^T q, dv = P^T dy. Softmax gives P faster than the log-sum would.
 */
export function lowerAttentionGradient(
  emit: Emitter,
  [q, k, v, y, , dyGiven, segments]: readonly [Value, Value, Value, Value, Value, Value, Value?],
  { attributes: { scale } }: Lowered<'attentionGradient'>,
): readonly Value[] {
  if (emit.ownOperators) {
    const operands = [q, k, v, y, dyGiven, ...offsetsOf(emit, segments)];
    const results = [q, k, v].map(({ shape, dtype }) => ({ shape, dtype }));
    return emit.own('AttentionGradient', operands, results, ownAttributes(emit, scale, segments));
  }
  const [B, S, H] = sizes4(q.shape);
  const mask = segments && segmentMask(emit, segments, S);
  const dyVisible = mask ? masked(emit, dyGiven, mask.valid, [B, S, 1, 1]) : dyGiven;
  const total = emit.reduceLast('ReduceSum', emit.elementwise('Mul', dyVisible, y)); // [B, S, H, 1]
  const heads = [q, k, v, dyVisible].map((x) => headsFirst(emit, x)) as [Value, Value, Value, Value];
  const [qh, kh, vh, dyh] = heads;
  const { left, right, rest } = deviationFactors(emit, { v, dy: dyVisible, vh, dyh, total });
  const parts = partsOf(emit.scoreBytes, B, S, H, at(k.shape, 1)).map((rows) => {
    const perRow = rows.map((part) => {
      const [qPart, kPart, dyPart] = [take(emit, qh, part), takeBatch(emit, kh, part), take(emit, dyh, part)];
      const scores = maskedScores(emit, qPart, kPart, scale, mask && biasOf(emit, mask, part));
      const p = emit.op('Softmax', [scores], scores, { axis: -1 });
      const factors = [take(emit, left, part), takeBatch(emit, right, part)] as const;
      const product = batchedMatmul(emit, ...factors, { transposeB: true }, scores);
      const deviation = rest ? emit.elementwise('Sub', product, take(emit, rest, part)) : product;
      const ds = emit.elementwise('Mul', p, deviation);
      return {
        dq: batchedMatmul(emit, ds, kPart, { scale }, qPart),
        dk: batchedMatmul(emit, ds, qPart, { transposeA: true, scale }, kPart),
        dv: batchedMatmul(emit, p, dyPart, { transposeA: true }, takeBatch(emit, vh, part)),
      };
    });
    const add = (a: Value, b: Value) => emit.elementwise('Add', a, b);
    return [
      {
        dq: emit.concat(
          perRow.map(({ dq }) => dq),
          2,
        ),
        dk: perRow.map(({ dk }) => dk).reduce(add),
        dv: perRow.map(({ dv }) => dv).reduce(add),
      },
    ];
  });
  return (['dq', 'dk', 'dv'] as const).map((name) =>
    headsFirst(
      emit,
      joined(emit, parts, (part) => part[name]),
    ),
  );
}

/**
 * dP - dy . y as left right^T - rest, heads first. On the CPU there is no rest: [dy, -total] [v, 1]^T has one more
 * column in a product that is made anyway, which costs nothing, and saves a pass over all scores.
 */
function deviationFactors(
  emit: Emitter,
  { v, dy, vh, dyh, total }: Readonly<Record<'v' | 'dy' | 'vh' | 'dyh' | 'total', Value>>,
): { left: Value; right: Value; rest?: Value } {
  if (emit.device !== 'cpu') return { left: dyh, right: vh, rest: headsFirst(emit, total) };
  const shape = [...v.shape.slice(0, 3), 1];
  const ones = emit.op('Expand', [emit.scalar(1), emit.integers(shape)], { shape, dtype: v.dtype });
  return {
    left: headsFirst(emit, emit.concat([dy, emit.op('Neg', [total], total)], 3)),
    right: headsFirst(emit, emit.concat([v, ones], 3)),
  };
}

/** Offsets as our own operators read them, if there are any. */
function offsetsOf(emit: Emitter, segments: Value | undefined): Value[] {
  return segments === undefined ? [] : [emit.castTo(segments, 'float', 'f32')];
}

function ownAttributes(
  emit: Emitter,
  scale: number,
  segments: Value | undefined,
): Readonly<Record<string, OnnxAttribute>> {
  return {
    scale: { floats: [scale] },
    segmented: [Number(segments !== undefined)],
    rounded: [Number(emit.roundsProducts)],
  };
}

/** Rotary positions through ONNX's operator, in its three-axis form. */
export function lowerRotary(
  emit: Emitter,
  [x, cos, sin]: readonly [Value, Value, Value],
  { attributes: { interleaved } }: Lowered<'rotary'>,
): readonly Value[] {
  const [B, S, H, D] = sizes4(x.shape);
  const shape: Shape = [B, S, D / 2];
  const angles = [cos, sin].map((a) =>
    at(a.shape, 0) === B ? a : emit.op('Expand', [a, emit.integers(shape)], { shape, dtype: a.dtype }),
  );
  const flat = emit.reshape(x, [B, S, H * D]);
  const y = emit.op('RotaryEmbedding', [flat, ...angles], flat, {
    interleaved: Number(interleaved),
    num_heads: H,
  });
  return [emit.reshape(y, x.shape)];
}

/** A stretch of queries of a stretch of the batch. */
interface Part {
  readonly batch: readonly [start: number, end: number];
  readonly queries: readonly [start: number, end: number];
}

/** Cuts the work so that each part's scores fit `scoreBytes`: first by batch row, then by queries. */
function partsOf(scoreBytes: number, B: number, S: number, H: number, T: number): Part[][] {
  const rowBytes = 4 * H * S * T;
  const rowsPerPart = Math.max(1, Math.floor(scoreBytes / rowBytes));
  const queriesPerPart = Math.max(1, Math.floor(S / Math.ceil(rowBytes / scoreBytes)));
  return ranges(B, rowsPerPart).map((batch) =>
    ranges(S, queriesPerPart).map((queries) => ({ batch, queries })),
  );
}

function ranges(size: number, step: number): [number, number][] {
  return Array.from({ length: Math.ceil(size / step) }, (_, i) => [i * step, Math.min(size, (i + 1) * step)]);
}

function takeBatch(emit: Emitter, x: Value, { batch: [start, end] }: Part): Value {
  return emit.slice(x, 0, start, end);
}

function take(emit: Emitter, x: Value, part: Part): Value {
  return emit.slice(takeBatch(emit, x, part), 2, ...part.queries);
}

/** Parts put together again: queries along axis 2, batch along axis 0. */
function joined<P>(emit: Emitter, parts: readonly (readonly P[])[], select: (part: P) => Value): Value {
  return emit.concat(
    parts.map((rows) => emit.concat(rows.map(select), 2)),
    0,
  );
}

function maskedScores(emit: Emitter, q: Value, k: Value, scale: number, bias: Value | undefined): Value {
  const type: TensorType = { shape: [...q.shape.slice(0, 3), at(k.shape, 2)], dtype: q.dtype };
  const scores = batchedMatmul(emit, q, k, { transposeB: true, scale }, type);
  return bias === undefined ? scores : emit.elementwise('Add', scores, bias);
}

/** log of the softmax's denominator: at the largest score m, p = e^(m - logSum). */
function logSumOf(emit: Emitter, scores: Value, probabilities: Value): Value {
  const largest = emit.reduceLast('ReduceMax', scores);
  return emit.elementwise(
    'Sub',
    largest,
    emit.op('Log', [emit.reduceLast('ReduceMax', probabilities)], largest),
  );
}

interface SegmentMask {
  /** Number of offsets at or before each token, f32 [B, S]: equal within a segment. */
  readonly segment: Value;
  /** 1 for tokens that are in some segment, else 0, f32 [B, S]. */
  readonly valid: Value;
}

function segmentMask(emit: Emitter, offsets: Value, S: number): SegmentMask {
  const [B, count] = [at(offsets.shape, 0), at(offsets.shape, 1)];
  const positions: Value = {
    name: emit.model.constant(
      'int32',
      [S, 1],
      Array.from({ length: S }, (_, s) => s),
    ),
    shape: [S, 1],
    dtype: 'i32',
  };
  const shape = [B, S, count];
  const later = emit.op('Less', [positions, emit.reshape(offsets, [B, 1, count])], { shape, dtype: 'bool' });
  const after = emit.op(
    'ReduceSum',
    [emit.castTo(later, 'float', 'f32'), emit.integers([-1])],
    { shape: [B, S], dtype: 'f32' },
    { keepdims: 0 },
  );
  // `after` counts the offsets beyond a token: all of them before the first segment, none behind the last.
  const begun = emit.op('Less', [after, emit.scalar(count)], { shape: [B, S], dtype: 'bool' });
  const ended = emit.op('Less', [after, emit.scalar(0.5)], { shape: [B, S], dtype: 'bool' });
  const valid = emit.op('And', [begun, emit.op('Not', [ended], ended)], begun);
  return { segment: after, valid: emit.castTo(valid, 'float', 'f32') };
}

/** What is added to a part's scores: 0 within a segment, a large negative number across. */
function biasOf(emit: Emitter, { segment }: SegmentMask, { batch, queries }: Part): Value {
  const rows = emit.slice(segment, 0, ...batch);
  const [b, s] = [at(rows.shape, 0), at(rows.shape, 1)];
  const asQueries = emit.reshape(emit.slice(rows, 1, ...queries), [b, 1, queries[1] - queries[0], 1]);
  const shape = [b, 1, queries[1] - queries[0], s];
  const same = emit.op('Equal', [asQueries, emit.reshape(rows, [b, 1, 1, s])], { shape, dtype: 'bool' });
  return emit.op('Where', [same, emit.scalar(0), emit.scalar(-1e30)], { shape, dtype: 'f32' });
}

/** x where tokens are in a segment, else 0. A product, not Where: WebGPU cannot transpose the booleans of one. */
function masked(emit: Emitter, x: Value, valid: Value, shape: Shape): Value {
  return emit.elementwise('Mul', x, emit.reshape(valid, shape));
}

/** [B, S, H, D] to [B, H, S, D] and back. */
function headsFirst(emit: Emitter, x: Value): Value {
  return emit.transpose(x, [0, 2, 1, 3]);
}

function sizes4(shape: Shape): [number, number, number, number] {
  return [at(shape, 0), at(shape, 1), at(shape, 2), at(shape, 3)];
}
