import { concat, matmul } from '../tensor/functions.ts';
import { at, elementCount, expectShape } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { entries, leaves, type TreeOf, withLeaves } from '../tensor/tree.ts';
import { type AdamResult, type AdamSettings, type AdamState, type AdamStep, adamW } from './optimizer.ts';

/** Decay of the mean of gradients of matrices that Muon moves. */
const momentum = 0.95;

/** The quintic of Newton-Schulz: its slope at 0 is steep, and singular values end between 0.7 and 1.2. */
const [a, b, c] = [3.4445, -4.775, 2.0315] as const;
const iterations = 5;

/** Share of the learning rate that makes a step of Muon as large as one of AdamW. */
const adamSize = 0.2;

/** Values that change from step to step, f32 scalars. */
export interface MuonStep<Leaf> extends AdamStep<Leaf> {
  /** Learning rate without AdamW's corrections. */
  readonly plainRate: Leaf;
}

/**
 * The closest matrices with orthonormal rows (or columns, whichever are fewer), nearly: five iterations of Newton-Schulz
 * (Jordan et al. 2024, Muon). x [N, R, C] -> [N, R, C], each matrix for itself.
 */
export function orthogonalized(x: Tensor): Tensor {
  const { R, C } = expectShape(x, 'N R C', {}, 'matrices');
  const tall = R > C;
  let y = x.div(x.square().sum([1, 2], true).sqrt().add(1e-7));
  for (let i = 0; i < iterations; i++) {
    const gram = matmul(y, y, { transposeA: tall, transposeB: !tall }); // [N, min, min]
    const factor = gram.mul(b).add(matmul(gram, gram).mul(c)); // [N, min, min]
    y = y.mul(a).add(tall ? matmul(y, factor) : matmul(factor, y));
  }
  return y;
}

/**
 * One step in which matrices and kernels of repeated blocks, and those that lead from one resolution to the next, are moved by
 * Muon (Jordan et al. 2024), scaled to the size of AdamW's steps so that one learning rate serves both (Liu et al. 2025,
 * Moonlight, eq. 4), and everything else by {@link adamW}: embeddings, first and last layers, vectors. Queries, keys
 * and values count as three matrices, a kernel as one, of its outputs by everything that each of them sees. Muon has no use for
 * the mean of squares, which stays what it was, nor for `settings.maxNorm`: its steps have one size.
 *
 * Matrices of one size are moved together, in one batched product for all of them.
 */
export function muon<Tree extends object>(
  parameters: Tree,
  gradients: TreeOf<Tree, Tensor>,
  state: AdamState<Tree>,
  step: MuonStep<Tensor>,
  settings: AdamSettings = {},
): AdamResult<Tree> {
  const rest = adamW(parameters, gradients, state, step, settings);
  const moved = new Map(hiddenOf(parameters, gradients, state).flatMap((group) => moveTogether(group, step)));
  const tree = (others: Tree, pick: (one: Moved) => Tensor) =>
    withLeaves(
      parameters,
      (leaves(others) as Tensor[]).map((leaf, index) => {
        const one = moved.get(index);
        return one === undefined ? leaf : pick(one);
      }),
    ) as unknown as Tree;
  return {
    parameters: tree(rest.parameters, ({ parameter }) => parameter),
    state: {
      mean: tree(rest.state.mean, ({ mean }) => mean),
      square: tree(rest.state.square, ({ square }) => square),
    },
    gradientNorm: rest.gradientNorm,
  };
}

/** A parameter that Muon moves, and what is remembered of it. */
interface Moved {
  readonly parameter: Tensor;
  readonly mean: Tensor;
  readonly square: Tensor;
}

/** Such a parameter before a step. */
interface Hidden extends Moved {
  /** Its place among all parameters. */
  readonly index: number;
  readonly gradient: Tensor;
  /** Matrices that it holds, one below the other. */
  readonly parts: number;
}

/** One step of parameters whose matrices are of one size, each after its index. */
function moveTogether(
  group: readonly Hidden[],
  { plainRate, keep }: MuonStep<Tensor>,
): [index: number, Moved][] {
  const means = group.map(({ mean, gradient }) => mean.mul(momentum).add(gradient.mul(1 - momentum)));
  const directions = group.map(({ gradient, parts }, i) => {
    const ahead = at(means, i)
      .mul(momentum)
      .add(gradient.mul(1 - momentum)); // Nesterov's
    return ahead.reshape([parts, ...matrixShape(gradient, parts)]);
  });
  const all = orthogonalized(concat(directions, 0));
  const [, rows = 0, columns = 0] = all.shape;
  const rate = plainRate.mul(adamSize * Math.sqrt(Math.max(rows, columns)));
  const sizes = group.map(({ parts }) => parts);
  return all.split(0, sizes).map((direction, i) => {
    const { index, parameter, square } = at(group, i);
    const change = direction.reshape(parameter.shape).mul(rate);
    return [index, { parameter: parameter.mul(keep).sub(change), mean: at(means, i), square }];
  });
}

/** Rows and columns of each of the `parts` matrices of a parameter [rows, ..]. */
function matrixShape({ shape }: Tensor, parts: number): [rows: number, columns: number] {
  const [rows = 0, ...rest] = shape;
  return [rows / parts, elementCount(rest)];
}

/** What Muon moves, matrices of one size together. */
function hiddenOf<Tree extends object>(
  parameters: Tree,
  gradients: TreeOf<Tree, Tensor>,
  state: AdamState<Tree>,
): Hidden[][] {
  const leaf = (tree: object, index: number) => at(leaves(tree) as Tensor[], index);
  const groups = new Map<string, Hidden[]>();
  for (const [index, [name, parameter]] of (entries(parameters) as [string, Tensor][]).entries()) {
    if (parameter.rank < 2 || !/(^|\.)(blocks\.\d+|down|up)\./.test(name)) continue;
    const parts = name.endsWith('.qkv.weight') ? 3 : 1;
    const size = matrixShape(parameter, parts).join('x');
    const own = {
      gradient: leaf(gradients, index),
      mean: leaf(state.mean, index),
      square: leaf(state.square, index),
    };
    groups.set(size, [...(groups.get(size) ?? []), { index, parameter, parts, ...own }]);
  }
  return [...groups.values()];
}
