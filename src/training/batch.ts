import type { CachedCaptions } from '../data/latent-cache.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';

/** What goes to the device for one step. */
export interface Batch {
  /** Which of the static shapes it has. */
  readonly variant: string;
  /** Tree of host tensors. */
  readonly values: BatchValues;
  /** Numbers to report with the step's metrics, such as how full it is. */
  readonly facts: Readonly<Record<string, number>>;
  /** Captions of its clips, where they are to be stored rather than trained on. */
  readonly captions?: readonly CachedCaptions[];
  /** How much of each latent position of its clips objects cover, f32 [T', H', W'], where it is to be stored. */
  readonly coverage?: readonly HostTensor<'f32'>[];
}

/** A tree of host tensors that can be sent to another thread. */
export type BatchValues = { readonly [name: string]: HostTensor | BatchValues };

/** What a step's batch is to hold: plain data, cheap to decide, from which any thread makes the batch. */
export interface BatchPlan {
  /** Counted from 1. */
  readonly step: number;
  /** Counted from 1 over all processes: names the batch's noise. With one process it is the step. */
  readonly number: number;
  /** Which of the static shapes. */
  readonly variant: string;
  /** Clips of the batch, in a form that only its maker knows. */
  readonly clips: readonly (readonly number[])[];
}

/** Makes planned batches. The same plan gives the same batch, wherever and whenever it is made. */
export type BatchMaker = (plan: BatchPlan) => Promise<Batch>;

/** Decides what each batch holds. Together with a position it is all the state that data has. */
export interface BatchPlanner {
  /** Types of the batch of each variant: trees with a shape and a dtype at the leaves. */
  readonly variants: ReadonlyMap<string, object>;
  /**
   * The plan of a step.
   * @param position clips used before it; 0 at the start.
   * @returns the plan, and the position after it.
   */
  plan(step: number, position: number): { readonly plan: BatchPlan; readonly position: number };
}
