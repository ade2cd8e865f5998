import { inputsOf } from '../executors/executor.ts';
import { initialize } from '../nn/parameters.ts';
import { fold, keyFromSeed } from '../random/philox.ts';
import type { ModelKind } from '../storage/model-file.ts';
import { concat, where } from '../tensor/functions.ts';
import { fromFloat32, type HostTensor } from '../tensor/host-tensor.ts';
import { at, type TensorType } from '../tensor/shape.ts';
import type { Graph, Tensor } from '../tensor/tensor.ts';
import { block, trace } from '../tensor/trace.ts';
import { leaves, mapTree, withLeaves } from '../tensor/tree.ts';
import { type LossTerms, meanOverProcesses } from './mean-over-processes.ts';
import { type MuonStep, muon } from './muon.ts';
import {
  type AdamResult,
  type AdamState,
  adamSchedule,
  adamState,
  adamW,
  learningRate,
} from './optimizer.ts';
import { type CommonRecipe, scheduleOf } from './recipe.ts';
import { Parts, partShape, partsOf } from './shares.ts';

/** A model as training sees it: what it is made of, and how wrong it is on a batch. */
export interface TrainingModel {
  readonly kind: ModelKind;
  /** The model's configuration, as its file holds it. */
  readonly config: object;
  /** Tree of parameter specifications. */
  readonly spec: object;
  /**
   * The loss on a batch, as graph code.
   * @param parameters tensors in the form of `spec`.
   * @param batch tensors in the form of the model's batches.
   * @returns `loss` is what is minimised; `terms` are scalars to be reported. All are f32 scalars.
   */
  loss(parameters: object, batch: object): LossTerms;
}

/** All that changes from step to step; a tree, so that it can be traced, uploaded and stored. */
export interface TrainingState<Leaf> {
  readonly parameters: object;
  readonly moments: AdamState<object>;
  /** Running average of the parameters (Polyak & Juditsky 1992): what is sampled from. */
  readonly average: object;
  /** 1, f32 scalar; 0 from the first step on whose loss or gradients were not finite. Such a step changes nothing else. */
  readonly alive: Leaf;
  /**
   * Where each of several processes has its part of the moments: its parts of the parameters that are divided, which its
   * optimizer moves. They are in `parameters` too.
   */
  readonly own?: readonly Leaf[];
}

/** A state on the host. */
export type HostState = TrainingState<HostTensor>;

/** The state before the first step: weights from the recipe's seed, or those given. */
export function initialTrainingState(
  { spec }: Pick<TrainingModel, 'spec'>,
  seed: number,
  given?: object,
): HostState {
  const parameters = given ?? initialize(spec, fold(keyFromSeed(seed), 'parameters'));
  const alive = fromFloat32('f32', [], Float32Array.of(1));
  return { parameters, moments: adamState(parameters), average: parameters, alive };
}

/** The types of a state. @param world processes of which each has its part of the moments. Default: one has all. */
export function stateTypes(spec: object, world?: number): TrainingState<TensorType> {
  const partType = (parts: number) => (leaf: object) => {
    const { shape, dtype } = leaf as TensorType;
    return { shape: partShape(shape, parts), dtype };
  };
  const types = (parts = 1) => mapTree(spec, partType(parts));
  return {
    parameters: types(),
    moments: { mean: types(world), square: types(world) },
    average: types(),
    alive: { shape: [], dtype: 'f32' },
    ...(world !== undefined && { own: partsOf(spec, world, partType(world)) }),
  };
}

/** A training step, ready to be compiled. */
export interface TracedStep {
  /** Inputs: state, batch, numbers. Outputs: metrics f32 [M], then the state in the order of the inputs. */
  readonly graph: Graph;
  /** The state's inputs, for `CompileOptions.donate`. */
  readonly donate: readonly number[];
  /** Names of the metrics: `loss`, `gradientNorm`, the loss's terms; of several processes {@link stopping} too. */
  readonly metrics: readonly string[];
}

/** Name of the metric that counts the processes that were asked to stop. */
export const stopping = 'stopping';

/** Numbers of a step: {@link stepNumbers}. */
const numbersType = (processes: number): TensorType => ({ shape: [processes === 1 ? 5 : 6], dtype: 'f32' });

/**
 * One training step as graph code: loss, gradients, optimizer and the running average, so that nothing but batches goes to
 * the device and nothing but a few numbers comes back.
 *
 * Several processes, each with a batch of its own, make the step of all their batches as one: loss, metrics and gradients
 * are those of all, the same in every process, and so are the states.
 *
 * @param batch types of the batch's tensors.
 * @param processes how many make the step together. Default 1.
 * @param isSharded whether each of them has its part of the moments, and moves its part of the parameters: {@link Parts}.
 */
export function traceStep(
  model: TrainingModel,
  batch: object,
  recipe: CommonRecipe,
  processes = 1,
  isSharded = false,
): TracedStep {
  if (isSharded && recipe.optimizer.method !== 'adamw')
    throw new Error(`${recipe.optimizer.method} moves whole matrices, of which no process has but a part`);
  let names: readonly string[] = [];
  const traced = trace(
    `train ${model.kind}`,
    (state, values, numbers) => {
      const [rate, epsilon, keep, averageKeep, plainRate, stop] = numbers
        .split(0, new Array<number>(at(numbers.shape, 0)).fill(1))
        .map((one) => one.reshape([]));
      if (!rate || !epsilon || !keep || !averageKeep || !plainRate)
        throw new Error('a step has five numbers');
      const own = model.loss(state.parameters, values);
      const counts: Readonly<Record<string, Tensor>> = stop === undefined ? {} : { [stopping]: stop };
      const parts = state.own && new Parts(processes);
      const sum = parts && ((gradient: Tensor) => parts.sum(gradient));
      const { loss, found, terms } = meanOverProcesses(own, state.parameters, counts, processes, sum);
      const now = { rate, epsilon, keep, plainRate };
      const held = parts
        ? { ...state, parameters: parts.replaced(state.parameters, state.own ?? []) }
        : state;
      const norm = parts?.norm(found, state.parameters);
      const result = optimize(held, found, now, recipe.optimizer, norm);
      const alive = state.alive.mul(finite(loss)).mul(finite(result.gradientNorm));
      const metrics = { loss, gradientNorm: result.gradientNorm, ...terms };
      names = Object.keys(metrics);
      const row = Object.values(metrics).map((value) => value.reshape([1]));
      const after =
        parts === undefined
          ? advance(state, result, alive, averageKeep)
          : advanceParts(held, result, alive, averageKeep, parts);
      return { metrics: concat(row, 0), state: after };
    },
    stateTypes(model.spec, isSharded ? processes : undefined),
    batch,
    numbersType(processes),
  );
  return { graph: traced.graph, donate: inputsOf(traced.parameters, 0), metrics: names };
}

function optimize(
  { parameters, moments }: TrainingState<Tensor>,
  found: object,
  now: MuonStep<Tensor>,
  settings: CommonRecipe['optimizer'],
  gradientNorm: Tensor | undefined,
): AdamResult<object> {
  return settings.method === 'muon'
    ? muon(parameters, found, moments, now, settings)
    : adamW(parameters, found, moments, now, settings, gradientNorm);
}

/**
 * The numbers of step `step`, counted from 1: {@link adamSchedule}'s, the average's share and the learning rate, f32 [5].
 * @param isStopping whether this process was asked to stop, where there are others: f32 [6].
 */
export function stepNumbers(recipe: CommonRecipe, step: number, isStopping?: boolean): HostTensor<'f32'> {
  const schedule = scheduleOf(recipe);
  const { rate, epsilon, keep } = adamSchedule(schedule, step, recipe.optimizer);
  const numbers = [rate, epsilon, keep, averageShare(recipe.ema, step), learningRate(schedule, step)];
  if (isStopping !== undefined) numbers.push(isStopping ? 1 : 0);
  return fromFloat32('f32', [numbers.length], Float32Array.from(numbers));
}

/** What the running average keeps at step `step`, counted from 1: less at first, when weights are far from their end. */
export function averageShare(decay: number, step: number): number {
  return Math.min(decay, (1 + step) / (10 + step));
}

/** The state after an optimizer's step, or the state before it where `alive` is 0. */
function advance(
  before: TrainingState<Tensor>,
  after: { readonly parameters: object; readonly state: AdamState<object> },
  alive: Tensor,
  averageKeep: Tensor,
): TrainingState<Tensor> {
  const isAlive = alive.equal(1);
  const hold = block('hold', (condition: Tensor, keep: Tensor, old: Leaves, fresh: Fresh): Leaves => {
    const average = old.average.mul(keep).add(fresh.parameter.mul(keep.neg().add(1)));
    return {
      parameter: where(condition, fresh.parameter, old.parameter),
      mean: where(condition, fresh.mean, old.mean),
      square: where(condition, fresh.square, old.square),
      average: where(condition, average, old.average),
    };
  });
  const trees = [
    before.parameters,
    before.moments.mean,
    before.moments.square,
    before.average,
    after.parameters,
    after.state.mean,
    after.state.square,
  ].map((tree) => leaves(tree) as Tensor[]);
  const leaf = (tree: number, i: number) => at(at(trees, tree), i);
  const held = at(trees, 0).map((_, i) =>
    hold(
      isAlive,
      averageKeep,
      { parameter: leaf(0, i), mean: leaf(1, i), square: leaf(2, i), average: leaf(3, i) },
      { parameter: leaf(4, i), mean: leaf(5, i), square: leaf(6, i) },
    ),
  );
  const tree = (name: keyof Leaves) =>
    withLeaves(
      before.parameters,
      held.map((one) => one[name]),
    );
  return {
    parameters: tree('parameter'),
    moments: { mean: tree('mean'), square: tree('square') },
    average: tree('average'),
    alive,
  };
}

/**
 * {@link advance} where a process moved its parts: all are put together, and the average is of the whole.
 * @param before with this process's parts of the parameters.
 */
function advanceParts(
  before: TrainingState<Tensor>,
  after: { readonly parameters: object; readonly state: AdamState<object> },
  alive: Tensor,
  averageKeep: Tensor,
  parts: Parts,
): TrainingState<Tensor> {
  const isAlive = alive.equal(1);
  const hold = block(
    'hold part',
    (condition: Tensor, old: Fresh, fresh: Fresh): Fresh => ({
      parameter: where(condition, fresh.parameter, old.parameter),
      mean: where(condition, fresh.mean, old.mean),
      square: where(condition, fresh.square, old.square),
    }),
  );
  const average = block('average', (condition: Tensor, keep: Tensor, old: Tensor, fresh: Tensor) =>
    where(condition, old.mul(keep).add(fresh.mul(keep.neg().add(1))), old),
  );
  const of = (tree: object) => leaves(tree) as Tensor[];
  const [means, squares] = [before.moments.mean, before.moments.square].map(of) as [Tensor[], Tensor[]];
  const fresh = [after.parameters, after.state.mean, after.state.square].map(of) as [
    Tensor[],
    Tensor[],
    Tensor[],
  ];
  const held = of(before.parameters).map((parameter, i) =>
    hold(
      isAlive,
      { parameter, mean: at(means, i), square: at(squares, i) },
      { parameter: at(fresh[0], i), mean: at(fresh[1], i), square: at(fresh[2], i) },
    ),
  );
  const parameters = of(before.average).map(({ shape }, i) => parts.whole(at(held, i).parameter, shape));
  const averages = of(before.average).map((old, i) => average(isAlive, averageKeep, old, at(parameters, i)));
  const tree = (values: readonly Tensor[]) => withLeaves(before.parameters, values);
  return {
    parameters: tree(parameters),
    moments: { mean: tree(held.map(({ mean }) => mean)), square: tree(held.map(({ square }) => square)) },
    average: tree(averages),
    alive,
    own: held.map(({ parameter }) => parameter).filter((_, i) => parts.divides(at(averages, i).shape)),
  };
}

interface Fresh {
  readonly parameter: Tensor;
  readonly mean: Tensor;
  readonly square: Tensor;
}

interface Leaves extends Fresh {
  readonly average: Tensor;
}

/** 1 where a scalar is finite, else 0. NaN is not less than anything. */
function finite(scalar: Tensor): Tensor {
  return scalar.abs().less(3e38).cast('f32');
}
