import type { HostTensor } from '../tensor/host-tensor.ts';
import { zeros } from '../tensor/host-tensor.ts';
import { at, type TensorType } from '../tensor/shape.ts';
import { constant, type Tensor } from '../tensor/tensor.ts';
import { block } from '../tensor/trace.ts';
import { leaves, mapTree, type TreeOf, withLeaves } from '../tensor/tree.ts';

/** Settings of AdamW; fixed when the training step is traced. */
export interface AdamSettings {
  /** Decay of the mean of gradients, 0 to 1. Default 0.9. */
  readonly beta1?: number;
  /** Decay of the mean of squared gradients, 0 to 1. Default 0.95. */
  readonly beta2?: number;
  /** Added to the root of the mean square. Default 1e-8. */
  readonly epsilon?: number;
  /** Share of each matrix that decays per unit of learning rate; vectors (biases, scales) do not. Default 0. */
  readonly weightDecay?: number;
  /** Gradients are scaled down so that their norm over all parameters is at most this. Default: no limit. */
  readonly maxNorm?: number;
}

/** What AdamW remembers: running means of gradients and of their squares, f32, in the form of the parameters. */
export interface AdamState<Tree> {
  readonly mean: Tree;
  readonly square: Tree;
}

/** Values that change from step to step, f32 scalars; {@link adamSchedule} gives them. */
export interface AdamStep<Leaf> {
  /** Learning rate with the bias corrections of both means folded in: rate sqrt(1 - beta2^t) / (1 - beta1^t). */
  readonly rate: Leaf;
  /** epsilon sqrt(1 - beta2^t): what epsilon becomes when the correction of the square is folded into the rate. */
  readonly epsilon: Leaf;
  /** 1 - rate weightDecay: what is left of a decaying parameter. */
  readonly keep: Leaf;
}

/** What a step gives back. */
export interface AdamResult<Tree> {
  readonly parameters: Tree;
  readonly state: AdamState<Tree>;
  /** Norm of the gradients over all parameters before limiting, f32 scalar. */
  readonly gradientNorm: Tensor;
}

const defaults = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0 };

/** The state before the first step: zeros. */
export function adamState<Tree extends object>(parameters: Tree): AdamState<TreeOf<Tree, HostTensor>> {
  const empty = () => mapTree(parameters, (leaf) => zeros('f32', (leaf as TensorType).shape));
  return { mean: empty(), square: empty() };
}

/**
 * One step of AdamW as graph code (Kingma & Ba 2015, algorithm 1 with the efficient order of section 2; Loshchilov &
 * Hutter 2019), gradients limited by their global norm (Pascanu et al. 2013).
 *
 * Each parameter is updated by a call, so that one small compiled graph per shape serves all and memory stays flat.
 * @param gradientNorm default: that of `gradients`.
 */
export function adamW<Tree extends object>(
  parameters: Tree,
  gradients: TreeOf<Tree, Tensor>,
  state: AdamState<Tree>,
  step: AdamStep<Tensor>,
  settings: AdamSettings = {},
  gradientNorm = globalNorm(gradients),
): AdamResult<Tree> {
  const { beta1, beta2 } = { ...defaults, ...settings };
  const limit =
    settings.maxNorm === undefined
      ? constant([1], [])
      : gradientNorm
          .add(1e-12)
          .mul(1 / settings.maxNorm)
          .maximum(1);
  const update = block(
    'adamw',
    (p: Tensor, g: Tensor, mean: Tensor, square: Tensor, at: AdamStep<Tensor>, scale: Tensor) => {
      const newMean = mean.mul(beta1).add(g.mul(scale.mul(1 - beta1)));
      const newSquare = square.mul(beta2).add(g.square().mul(scale.square().mul(1 - beta2)));
      const change = newMean.div(newSquare.sqrt().add(at.epsilon)).mul(at.rate);
      const kept = p.rank >= 2 ? p.mul(at.keep) : p;
      return { parameter: kept.sub(change), mean: newMean, square: newSquare };
    },
  );
  const [ps, gs, means, squares] = [parameters, gradients, state.mean, state.square].map(
    (tree) => leaves(tree) as Tensor[],
  );
  const scale = constant([1], []).div(limit);
  const updates = (ps ?? []).map((p, i) =>
    update(p, at(gs ?? [], i), at(means ?? [], i), at(squares ?? [], i), step, scale),
  );
  const tree = (pick: (u: (typeof updates)[number]) => Tensor) =>
    withLeaves(parameters, updates.map(pick)) as unknown as Tree;
  return {
    parameters: tree((u) => u.parameter),
    state: { mean: tree((u) => u.mean), square: tree((u) => u.square) },
    gradientNorm,
  };
}

/** Square root of the sum of squares of every element of a tree. */
export function globalNorm(tree: object): Tensor {
  const squares = (leaves(tree) as Tensor[]).map((leaf) => leaf.square().sum());
  return squares.reduce((total, square) => total.add(square), constant([0], [])).sqrt();
}

/** Learning rates over a training: a rise in a straight line, then half a cosine down. */
export interface Schedule {
  /** Highest learning rate, reached after the warm-up. */
  readonly rate: number;
  /** Steps of the warm-up. Default 0. */
  readonly warmup?: number;
  /** Steps of the whole training; default: no decay. */
  readonly steps?: number;
  /** Learning rate at the end as a share of `rate`. Default 0. */
  readonly floor?: number;
}

/** Learning rate of step `step`, counted from 1 (warm-up: Goyal et al. 2017; cosine: Loshchilov & Hutter 2017, eq. 5). */
export function learningRate({ rate, warmup = 0, steps, floor = 0 }: Schedule, step: number): number {
  if (step <= warmup) return (rate * step) / warmup;
  if (steps === undefined) return rate;
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  return rate * (floor + (1 - floor) * 0.5 * (1 + Math.cos(Math.PI * progress)));
}

/** The scalars of {@link adamW} for step `step`, counted from 1. */
export function adamSchedule(
  schedule: Schedule,
  step: number,
  settings: AdamSettings = {},
): AdamStep<number> {
  const { beta1, beta2, epsilon, weightDecay } = { ...defaults, ...settings };
  const rate = learningRate(schedule, step);
  const rootCorrection = Math.sqrt(1 - beta2 ** step);
  return {
    rate: (rate * rootCorrection) / (1 - beta1 ** step),
    epsilon: epsilon * rootCorrection,
    keep: 1 - rate * weightDecay,
  };
}
