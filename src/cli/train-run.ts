import type { Executor } from '../executors/executor.ts';
import type { BatchJob } from '../training/batch-job.ts';
import { openBatchPool } from '../training/batch-pool.ts';
import type { DeviceState } from '../training/device-state.ts';
import { type TrainingOutcome, type TrainingRun, train } from '../training/loop.ts';
import type { Terminal } from './command.ts';
import { note } from './make-video.ts';
import { createProgress } from './progress.ts';
import type { TrainSettings } from './train-options.ts';
import { isFirst, watcherOf } from './train-processes.ts';

/** A training as a command prepares it: what the shared settings do not say. */
export type PreparedRun = Pick<
  TrainingRun,
  'model' | 'recipe' | 'planner' | 'identity' | 'from' | 'processes'
> & {
  readonly job: BatchJob;
  /** As in a {@link TrainingRun}; `note` prints a line. */
  readonly sample?:
    | ((state: DeviceState, step: number, note: (text: string) => void) => Promise<void>)
    | undefined;
};

/** Runs a prepared training with progress on the terminal. */
export async function runTraining(
  executor: Executor,
  settings: TrainSettings,
  prepared: PreparedRun,
  terminal: Terminal,
): Promise<TrainingOutcome> {
  await using pool = await openBatchPool(prepared.job, settings.threads, executor.pin?.bind(executor));
  const { job: _job, sample, ...run } = prepared;
  const fallback = await executor.fallback?.();
  if (fallback !== undefined) note(terminal, `${executor.name} ${fallback}`);
  const until = Math.min(settings.steps ?? run.recipe.steps, run.recipe.steps);
  const watcher = watcherOf(run.processes, settings.patience);
  let begin = 0;
  let progress: ReturnType<typeof createProgress> | undefined;
  const outcome = await train({
    ...run,
    ...(sample && {
      sample: async (state: DeviceState, step: number) => {
        await sample(state, step, (text) => progress?.note(text));
        watcher.step(step);
      },
    }),
    executor,
    pool,
    folder: settings.out,
    isSharded: settings.isSharded,
    resume: settings.resume,
    until,
    signal: terminal.signal,
    onStart: (step) => {
      begin = step;
      watcher.step(step);
      progress = createProgress(terminal, { label: 'training', total: until - step, unit: 'steps' });
      if (step > 0) progress.note(`Going on after step ${step}`);
    },
    onStep: (step) => {
      watcher.step(step);
      if (sample !== undefined && step % run.recipe.intervals.sample === 0)
        watcher.rest(isFirst(run.processes));
      progress?.update(step - begin);
    },
  }).catch((error: unknown) => {
    progress?.[Symbol.dispose]();
    throw error;
  });
  watcher.rest(true);
  progress?.finish();
  // A GPU may still be reading what another one sends.
  await run.processes?.exchange(new Uint8Array());
  return outcome;
}
