import { allReduce, concat } from '../tensor/functions.ts';
import { gradients } from '../tensor/gradients.ts';
import { at } from '../tensor/shape.ts';
import { constant, type Tensor } from '../tensor/tensor.ts';
import { mapTree } from '../tensor/tree.ts';

/** What a training model's `loss` gives. */
export interface LossTerms {
  readonly loss: Tensor;
  /**
   * How much the batch counts where several make a step, f32 scalar: the number of what `loss` is a mean of. Default: as
   * much as every other.
   */
  readonly weight?: Tensor;
  readonly terms: Readonly<Record<string, Tensor>>;
}

/** Loss, terms and gradients of a step. */
export interface StepLoss {
  readonly loss: Tensor;
  /** The loss's terms, then what was counted. */
  readonly terms: Readonly<Record<string, Tensor>>;
  /** Gradients of the loss in the form of the parameters. */
  readonly found: object;
}

/**
 * Loss and gradients of the batches of all processes as of one batch: the mean by the batches' weights. A process
 * differentiates its share of it, and the shares are added up.
 * @param counts f32 scalars that are added up over the processes as they are.
 * @param sum adds a gradient up over the processes. Default: all of them get all of it.
 */
export function meanOverProcesses(
  { loss, weight, terms }: LossTerms,
  parameters: object,
  counts: Readonly<Record<string, Tensor>>,
  processes: number,
  sum: (gradient: Tensor) => Tensor = allReduce,
): StepLoss {
  if (processes === 1) return { loss, terms: { ...terms, ...counts }, found: gradients(loss, parameters) };
  const share =
    weight === undefined ? constant([1 / processes], []) : weight.div(allReduce(weight).maximum(1));
  const own = loss.mul(share);
  const shares = gradients(own, parameters);
  const scaled = Object.entries(terms).map(([name, term]) => [name, term.mul(share)] as const);
  const added = { loss: own, ...Object.fromEntries(scaled), ...counts };
  const row = concat(
    Object.values(added).map((one) => one.reshape([1])),
    0,
  );
  const found = mapTree(shares, (gradient) => sum(gradient as Tensor));
  const summed = allReduce(row);
  const names = Object.keys(added);
  const sums = summed.split(0, new Array<number>(names.length).fill(1)).map((one) => one.reshape([]));
  const { loss: total, ...others } = Object.fromEntries(names.map((name, index) => [name, at(sums, index)]));
  if (total === undefined) throw new Error('a step has a loss');
  return { loss: total, terms: others, found };
}
