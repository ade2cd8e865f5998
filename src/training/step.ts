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
import { muon } from './muon.ts';
import { type AdamState, adamSchedule, adamState, adamW, learningRate } from './optimizer.ts';
import { type CommonRecipe, scheduleOf } from './recipe.ts';

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

/** The types of a state. */
export function stateTypes(spec: object): TrainingState<TensorType> {
  const types = () =>
    mapTree(spec, (leaf) => ({ shape: (leaf as TensorType).shape, dtype: (leaf as TensorType).dtype }));
  return {
    parameters: types(),
    moments: { mean: types(), square: types() },
    average: types(),
    alive: { shape: [], dtype: 'f32' },
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
 */
export function traceStep(
  model: TrainingModel,
  batch: object,
  recipe: CommonRecipe,
  processes = 1,
): TracedStep {
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
      const { loss, found, terms } = meanOverProcesses(own, state.parameters, counts, processes);
      const now = { rate, epsilon, keep, plainRate };
      const optimize = recipe.optimizer.method === 'muon' ? muon : adamW;
      const result = optimize(state.parameters, found, state.moments, now, recipe.optimizer);
      const alive = state.alive.mul(finite(loss)).mul(finite(result.gradientNorm));
      const metrics = { loss, gradientNorm: result.gradientNorm, ...terms };
      names = Object.keys(metrics);
      const row = Object.values(metrics).map((value) => value.reshape([1]));
      return { metrics: concat(row, 0), state: advance(state, result, alive, averageKeep) };
    },
    stateTypes(model.spec),
    batch,
    numbersType(processes),
  );
  return { graph: traced.graph, donate: inputsOf(traced.parameters, 0), metrics: names };
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
