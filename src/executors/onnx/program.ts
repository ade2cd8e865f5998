import { at } from '../../tensor/shape.ts';
import type { Graph } from '../../tensor/tensor.ts';
import type { LoweredGraph } from './lower.ts';
import type { HostProgram, HostStage } from './messages.ts';
import { stageGraph } from './stages.ts';

/** A stage of a program with its model, before it has a session. */
export interface PlannedStage extends Omit<HostStage, 'session'> {
  readonly lowered: LoweredGraph;
}

/** A program whose sessions are still to be made. */
export interface PlannedProgram extends Omit<HostProgram, 'stages'> {
  readonly stages: readonly PlannedStage[];
}

/**
 * Plans how a graph runs: stages with their models, and when each value dies.
 *
 * Stages are lowered from the last to the first, so that each makes only what a later model really reads. A block's
 * forward pass keeps what the backward rule names, but this executor's backward pass may need less of it.
 */
export function planProgram(
  graph: Graph,
  donated: readonly number[],
  lower: (graph: Graph, wanted: readonly number[]) => LoweredGraph,
): PlannedProgram {
  const { stages, outputs } = stageGraph(graph);
  const read = new Set(outputs);
  const planned: Omit<PlannedStage, 'last'>[] = [];
  for (const stage of [...stages].reverse()) {
    const wanted = stage.outputs.flatMap((slot, index) => (read.has(slot) ? [index] : []));
    if (wanted.length === 0) continue;
    const lowered = lower(stage.graph, wanted);
    const feeds = lowered.inputs.map((index) => [`i${index}`, at(stage.inputs, index)] as const);
    const fetches = lowered.outputs.map((fetch, i) => [fetch, at(stage.outputs, at(wanted, i))] as const);
    for (const [, slot] of feeds) read.add(slot);
    planned.unshift({ lowered, feeds, fetches, ...(lowered.flat && { flat: lowered.flat }) });
  }
  const last = lastUses(planned, outputs);
  return { stages: planned.map((stage, index) => ({ ...stage, last: at(last, index) })), outputs, donated };
}

/** For each stage, the slots that nothing reads after it; results of the whole are kept. */
function lastUses(
  stages: readonly Pick<HostStage, 'feeds' | 'fetches'>[],
  outputs: readonly number[],
): number[][] {
  const kept = new Set(outputs);
  const lastStage = new Map<number, number>();
  stages.forEach(({ feeds, fetches }, index) => {
    for (const [, slot] of [...feeds, ...fetches]) lastStage.set(slot, index);
  });
  const freed: number[][] = stages.map(() => []);
  for (const [slot, stage] of lastStage) if (!kept.has(slot)) at(freed, stage).push(slot);
  return freed;
}
