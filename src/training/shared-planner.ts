import { at } from '../tensor/shape.ts';
import type { BatchPlan, BatchPlanner } from './batch.ts';

/**
 * The plans of one process of several: a step takes as many batches as there are processes, in the order in which one
 * process would take them, and process `rank` makes the one at its place. All positions are those of the whole.
 */
export function sharedPlanner(
  planner: BatchPlanner,
  { rank, world }: { readonly rank: number; readonly world: number },
): BatchPlanner {
  return {
    variants: planner.variants,
    plan: (step, position) => {
      const plans: BatchPlan[] = [];
      let next = position;
      for (let share = 0; share < world; share++) {
        const planned = planner.plan(step, next);
        plans.push({ ...planned.plan, number: (step - 1) * world + share + 1 });
        next = planned.position;
      }
      return { plan: at(plans, rank), position: next };
    },
  };
}
