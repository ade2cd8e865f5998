import type { DType } from './dtype.ts';
import type { Shape, TensorType } from './shape.ts';

/** Operands of an op, a tuple with one entry per operand (the element type is filled in by {@link Operands}). */
type Signature<Inputs extends readonly unknown[], Attributes> = { inputs: Inputs; attributes: Attributes };
type X = unknown;
type None = Readonly<Record<never, never>>;
type Unary = Signature<[x: X], None>;
type Binary = Signature<[a: X, b: X], None>;
type Reduction = Signature<[x: X], { readonly axes: readonly number[]; readonly keepDims: boolean }>;

/** Geometry of a convolution; one entry per spatial axis. */
export interface ConvolutionGeometry {
  /** Step of the window, at least 1. */
  readonly strides: readonly number[];
  /** Zeros added before and after each axis; causal time has `[kernel - 1, 0]`. */
  readonly padding: readonly (readonly [before: number, after: number])[];
}

/** What a caller sees of a graph: its name and the types that go in and come out. */
export interface GraphSignature {
  readonly name: string;
  readonly inputs: readonly TensorType[];
  readonly outputs: readonly TensorType[];
}

/**
 * The closed vocabulary: every operation a graph can contain, with its operands and attributes.
 * Anything else is a composition of these. Each op has one entry in each exhaustive table (shape rule, gradient rule,
 * reference kernel, one lowering per executor, conformance cases); `docs/architecture.md` walks through adding one.
 *
 * Floats in, floats out of the same dtype unless said otherwise. Elementwise operands broadcast (NumPy's rule).
 *
 * `G` is what a `call` knows of the graph it calls; the vocabulary itself needs only its signature.
 */
export interface Vocabulary<G = GraphSignature> {
  /** A value given when the graph runs. */
  input: Signature<[], { readonly name: string; readonly shape: Shape; readonly dtype: DType }>;
  /** Known values: one that fills the shape, or one per element in row-major order. */
  constant: Signature<
    [],
    { readonly shape: Shape; readonly dtype: DType; readonly values: readonly number[] }
  >;

  /** -x; i32 too. */
  neg: Unary;
  /** |x|; gradient 1 at 0. */
  abs: Unary;
  /** e^x. */
  exp: Unary;
  /** Natural logarithm. */
  log: Unary;
  /** Square root. */
  sqrt: Unary;
  /** Sine of radians. */
  sin: Unary;
  /** Cosine of radians. */
  cos: Unary;
  /** Hyperbolic tangent. */
  tanh: Unary;
  /** 1 / (1 + e^-x). */
  sigmoid: Unary;
  /** Gaussian error linear unit in its tanh form: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
  gelu: Unary;
  /** x sigmoid(x). */
  silu: Unary;

  /** a + b; i32 too. */
  add: Binary;
  /** a - b; i32 too. */
  sub: Binary;
  /** a b; i32 too. */
  mul: Binary;
  /** a / b. */
  div: Binary;
  /** Larger of a and b; i32 too. The gradient of a tie goes to a. */
  maximum: Binary;
  /** Smaller of a and b; i32 too. The gradient of a tie goes to a. */
  minimum: Binary;
  /** a = b, as bool; any dtype. */
  equal: Binary;
  /** a < b, as bool; floats and i32. */
  less: Binary;
  /** a where the bool condition holds, else b; any dtype. */
  where: Signature<[condition: X, a: X, b: X], None>;
  /** x in another dtype: to i32 truncates toward zero, to bool is x != 0, to a narrower float rounds to even. */
  cast: Signature<[x: X], { readonly dtype: DType }>;

  /** Sum over `axes` (ascending, distinct). */
  sum: Reduction;
  /** Maximum over `axes` (ascending, distinct, none of size 0). Ties share the gradient. */
  max: Reduction;
  /** e^x over its sum along the last axis. */
  softmax: Unary;
  /** (x - mean) / sqrt(variance + epsilon) along the last axis, no affine. */
  layerNorm: Signature<[x: X], { readonly epsilon: number }>;
  /** x / sqrt(mean(x^2) + epsilon) along the last axis, no affine. */
  rmsNorm: Signature<[x: X], { readonly epsilon: number }>;

  /** Product over the last two axes [.., M, K] x [.., K, N], each read transposed if so marked; leading axes broadcast. */
  matmul: Signature<[a: X, b: X], { readonly transposeA: boolean; readonly transposeB: boolean }>;
  /** Cross-correlation, channels last: x [N, ..spatial, Cin], kernel [Cout, ..kernel, Cin] -> [N, ..spatial', Cout]. */
  convolution: Signature<[x: X, kernel: X], ConvolutionGeometry>;
  /** Gradient of `convolution` in x: dy [N, ..spatial', Cout], kernel -> [N, ..inputSize, Cin]. */
  convolutionInputGradient: Signature<
    [dy: X, kernel: X],
    ConvolutionGeometry & { readonly inputSize: Shape }
  >;
  /** Gradient of `convolution` in the kernel: x, dy -> [Cout, ..kernelSize, Cin]. */
  convolutionKernelGradient: Signature<[x: X, dy: X], ConvolutionGeometry & { readonly kernelSize: Shape }>;
  /**
   * softmax(scale q k^T) v per head: q [B, S, H, D], k and v [B, T, H, D] -> y [B, S, H, D] and the log of the
   * softmax's denominator, f32 [B, H, S]. With segment offsets, i32 [B, N+1] ascending, S = T and token t attends only
   * to its own segment n: offsets[n] <= t < offsets[n+1]; tokens in no segment give y = 0 and a log-sum of 0.
   */
  attention: Signature<[q: X, k: X, v: X, segments?: X], { readonly scale: number }>;
  /** Gradients of `attention` in q, k and v, from its operands, its two results and dy. */
  attentionGradient: Signature<
    [q: X, k: X, v: X, y: X, logSum: X, dy: X, segments?: X],
    { readonly scale: number }
  >;
  /**
   * Rotates channel pairs by angles: x [B, S, H, D], cos and sin [B or 1, S, D/2].
   * Pairs are (i, i + D/2), or neighbours (2i, 2i + 1) when interleaved. Positions are data: no gradient in cos, sin.
   */
  rotary: Signature<[x: X, cos: X, sin: X], { readonly interleaved: boolean }>;

  /** The same elements in row-major order under another shape; any dtype. */
  reshape: Signature<[x: X], { readonly shape: Shape }>;
  /** Axis i of the result is axis permutation[i] of x; any dtype. */
  transpose: Signature<[x: X], { readonly permutation: readonly number[] }>;
  /** x repeated along axes of size 1 and new leading axes; any dtype. */
  broadcast: Signature<[x: X], { readonly shape: Shape }>;
  /** Elements starts <= i < ends on each axis; any dtype. */
  slice: Signature<[x: X], { readonly starts: readonly number[]; readonly ends: readonly number[] }>;
  /** Operands one after the other along `axis`; any dtype. */
  concat: Signature<readonly X[], { readonly axis: number }>;
  /** x surrounded by zeros: `before` and `after` count them per axis; any dtype but bool. */
  pad: Signature<[x: X], { readonly before: readonly number[]; readonly after: readonly number[] }>;

  /** Rows of a table: table [R, ..rest], indices i32 [..I] in 0..R-1 -> [..I, ..rest]. */
  gather: Signature<[table: X, indices: X], None>;
  /** Adds updates [..I, ..rest] into zeros [rows, ..rest] at i32 indices [..I]; repeated indices accumulate. */
  scatterAdd: Signature<[indices: X, updates: X], { readonly rows: number }>;

  /** Sum of x over all processes. */
  allReduce: Signature<[x: X], None>;
  /** x of every process, one after the other along axis 0. */
  allGather: Signature<[x: X], { readonly processes: number }>;
  /** This process's part, along axis 0, of the sum of x over all processes. */
  reduceScatter: Signature<[x: X], { readonly processes: number }>;

  /** Results of a graph traced once and used many times. `recompute`: its backward pass runs it again, keeping nothing. */
  call: Signature<readonly X[], { readonly graph: G; readonly recompute: boolean }>;
}

/** Name of an operation in the {@link Vocabulary}. */
export type Op = keyof Vocabulary;

/** Attributes of operation `K`. */
export type Attributes<K extends Op, G = GraphSignature> = Vocabulary<G>[K]['attributes'];

/** Operands of operation `K`, each a `T`. */
export type Operands<K extends Op, T> = Each<Vocabulary[K]['inputs'], T>;
type Each<Inputs extends readonly unknown[], T> = { [I in keyof Inputs]: T };
