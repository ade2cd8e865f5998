import { at, GraphError, type TensorType } from './shape.ts';
import { apply, applyOne, constant, type Tensor } from './tensor.ts';
import type { ConvolutionGeometry } from './vocabulary.ts';

/**
 * Matrix product over the last two axes, [.., M, K] x [.., K, N] -> [.., M, N]; leading axes broadcast.
 * Either operand may be read transposed, which costs nothing.
 * @throws GraphError when the inner sizes or the leading axes do not fit.
 */
export function matmul(a: Tensor, b: Tensor, { transposeA = false, transposeB = false } = {}): Tensor {
  return applyOne('matmul', [a, b], { transposeA, transposeB });
}

/** a where the bool `condition` holds, else b; all three broadcast, numbers become constants. */
export function where(condition: Tensor, a: Tensor | number, b: Tensor | number): Tensor {
  const dtype = typeof a === 'number' ? (typeof b === 'number' ? 'f32' : b.dtype) : a.dtype;
  const lift = (value: Tensor | number) => (typeof value === 'number' ? constant([value], [], dtype) : value);
  return applyOne('where', [condition, lift(a), lift(b)], {});
}

/** e^x over its sum along the last axis. */
export function softmax(x: Tensor): Tensor {
  return applyOne('softmax', [x], {});
}

/** (x - mean) / sqrt(variance + epsilon) along the last axis, without affine (Ba et al. 2016). Default epsilon 1e-6. */
export function layerNorm(x: Tensor, epsilon = 1e-6): Tensor {
  return applyOne('layerNorm', [x], { epsilon });
}

/** x / sqrt(mean(x^2) + epsilon) along the last axis, without affine (Zhang & Sennrich 2019). Default epsilon 1e-6. */
export function rmsNorm(x: Tensor, epsilon = 1e-6): Tensor {
  return applyOne('rmsNorm', [x], { epsilon });
}

/** Gaussian error linear unit, tanh form (Hendrycks & Gimpel 2016). */
export function gelu(x: Tensor): Tensor {
  return applyOne('gelu', [x], {});
}

/** x sigmoid(x) (Elfwing et al. 2017). */
export function silu(x: Tensor): Tensor {
  return applyOne('silu', [x], {});
}

/** What attention needs besides queries, keys and values. */
export interface AttentionOptions {
  /** Factor on q k^T; default 1 / sqrt(head size). */
  readonly scale?: number;
  /** Packed sequences: i32 [B, N+1] ascending offsets of N segments in each row. Tokens outside attend to nothing. */
  readonly segments?: Tensor;
}

/**
 * Multi-head attention (Vaswani et al. 2017, eq. 1): q [B, S, H, D], k and v [B, T, H, D] -> [B, S, H, D].
 * With `segments` S = T and each token attends only within its own segment; tokens in none give 0.
 * @throws GraphError when shapes do not fit.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { scale, segments }: AttentionOptions = {},
): Tensor {
  const attributes = { scale: scale ?? 1 / Math.sqrt(at(q.shape, q.rank - 1)) };
  return at(apply('attention', segments === undefined ? [q, k, v] : [q, k, v, segments], attributes), 0);
}

/**
 * Rotary positions (Su et al. 2021): turns channel pairs (i, i + D/2) of x [B, S, H, D], or neighbours when
 * `interleaved`, by the angles whose cosines and sines are given, [B or 1, S, D/2]. No gradient flows into the angles.
 */
export function rotary(x: Tensor, cos: Tensor, sin: Tensor, { interleaved = false } = {}): Tensor {
  return applyOne('rotary', [x, cos, sin], { interleaved });
}

/**
 * n-dimensional cross-correlation, channels last: x [N, ..spatial, Cin], kernel [Cout, ..kernel, Cin] ->
 * [N, ..spatial', Cout]. Default: stride 1, no padding.
 * @throws GraphError when shapes or geometry do not fit.
 */
export function convolution(x: Tensor, kernel: Tensor, geometry: Partial<ConvolutionGeometry> = {}): Tensor {
  const spatial = Math.max(x.rank - 2, 0);
  return applyOne('convolution', [x, kernel], {
    strides: geometry.strides ?? new Array<number>(spatial).fill(1),
    padding: geometry.padding ?? new Array<[number, number]>(spatial).fill([0, 0]),
  });
}

/** Tensors one after the other along an axis (negative axes count from the end). */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const [first] = tensors;
  if (first === undefined) throw new GraphError('concat: needs at least one tensor');
  if (tensors.length === 1) return first;
  return applyOne('concat', tensors, { axis: axis < 0 ? axis + first.rank : axis });
}

/** x surrounded by zeros: [before, after] counts for each axis. */
export function pad(x: Tensor, counts: readonly (readonly [before: number, after: number])[]): Tensor {
  if (counts.length === x.rank && counts.every(([before, after]) => before === 0 && after === 0)) return x;
  return applyOne('pad', [x], {
    before: counts.map(([before]) => before),
    after: counts.map(([, after]) => after),
  });
}

/** Rows of a table [R, ..rest] at i32 indices [..I] -> [..I, ..rest]. Indices must be 0 to R-1. */
export function gather(table: Tensor, indices: Tensor): Tensor {
  return applyOne('gather', [table, indices], {});
}

/** Adds updates [..I, ..rest] into `rows` rows of zeros at i32 indices [..I] -> [rows, ..rest]. */
export function scatterAdd(indices: Tensor, updates: Tensor, rows: number): Tensor {
  return applyOne('scatterAdd', [indices, updates], { rows });
}

/** Sum of x over all processes. */
export function allReduce(x: Tensor): Tensor {
  return applyOne('allReduce', [x], {});
}

/** x of each of `processes` processes, one after the other along axis 0. */
export function allGather(x: Tensor, processes: number): Tensor {
  return applyOne('allGather', [x], { processes });
}

/** This process's part, along axis 0, of the sum of x over `processes` processes. */
export function reduceScatter(x: Tensor, processes: number): Tensor {
  return applyOne('reduceScatter', [x], { processes });
}

/** Undoes broadcasting: sums `x` over the axes along which `target` was repeated, giving `target`'s shape. */
export function sumTo(x: Tensor, target: TensorType): Tensor {
  const leading = x.rank - target.shape.length;
  const repeated = x.shape.flatMap((size, axis) => {
    const original = axis < leading ? undefined : at(target.shape, axis - leading);
    return original === undefined || (original === 1 && size !== 1) ? [axis] : [];
  });
  return (repeated.length > 0 ? x.sum(repeated) : x).reshape(target.shape);
}
