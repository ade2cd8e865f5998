import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import type { Executor } from '../executors/executor.ts';
import type { ProcessGroup } from '../executors/process-group.ts';
import type { Batch, BatchPlan, BatchPlanner } from './batch.ts';
import type { BatchPool } from './batch-pool.ts';
import {
  type Checkpoint,
  newestCheckpoint,
  type RunIdentity,
  readCheckpoint,
  writeCheckpoint,
} from './checkpoint.ts';
import { DeviceState, type StartedStep } from './device-state.ts';
import { findNonFinite } from './diagnose.ts';
import { MetricsLog } from './metrics.ts';
import { learningRate } from './optimizer.ts';
import { type CommonRecipe, scheduleOf } from './recipe.ts';
import { writeReport } from './report.ts';
import { sharedPlanner } from './shared-planner.ts';
import type { StartingWeights } from './starting-weights.ts';
import { type HostState, initialTrainingState, stopping, type TrainingModel } from './step.ts';

/** A training to be run. */
export interface TrainingRun {
  readonly executor: Executor;
  readonly model: TrainingModel;
  readonly recipe: CommonRecipe;
  readonly planner: BatchPlanner;
  readonly pool: BatchPool;
  /** Folder of the run: `checkpoints/`, `metrics.jsonl`, `report.html`, `samples/`. Made if missing. */
  readonly folder: string;
  readonly identity: RunIdentity;
  /** Weights to begin with. Default: drawn from the recipe's seed. */
  readonly from?: StartingWeights | undefined;
  /** Go on from the newest checkpoint of the folder; without one, begin. Otherwise a folder with checkpoints is refused. */
  readonly resume: boolean;
  /**
   * The processes that train together, with executors that were opened for them: each calls {@link train} with the same
   * settings, makes its share of the batches, and ends with the same state. Process 0 writes. Default: this one alone.
   */
  readonly processes?: ProcessGroup | undefined;
  /** Each of several processes has its part of the moments alone. Default: every one has all. */
  readonly isSharded?: boolean;
  /** Stop when so many steps are done. Default: the recipe's. */
  readonly until?: number;
  /** Checkpoints kept. Default 2. */
  readonly keep?: number;
  /** Aborted, in any of the processes: finish the step, write a checkpoint, stop. */
  readonly signal?: AbortSignal;
  /** Told of every step that is done. */
  readonly onStep?: (step: number) => void;
  /** Told once, when everything is ready and before the first step. */
  readonly onStart?: (step: number) => void;
  /** Makes a sample sheet of the state after `step`. */
  readonly sample?: (state: DeviceState, step: number) => Promise<void>;
}

/** How a training ended. */
export interface TrainingOutcome {
  /** Steps done in all. */
  readonly step: number;
  /** False when it was stopped by the signal. */
  readonly complete: boolean;
  /** The state after the last step. */
  readonly state: HostState;
}

/** Paths inside a run's folder. */
export const runPaths = (folder: string) => ({
  checkpoints: join(folder, 'checkpoints'),
  metrics: join(folder, 'metrics.jsonl'),
  report: join(folder, 'report.html'),
  samples: join(folder, 'samples'),
});

/**
 * Trains: batches are made ahead, the device runs, metrics are read one step late so that it never waits for the host.
 *
 * A run that is killed at any moment and resumed gives the same metrics as one that was not.
 * @throws UserError when the folder cannot be used or a loss is not finite; the newest checkpoint is from before that.
 */
export async function train(run: TrainingRun): Promise<TrainingOutcome> {
  const { executor, model, recipe, planner, processes } = run;
  const begin = await beginning(run);
  await checkBeginnings(run, begin);
  using device = await DeviceState.open(
    executor,
    model,
    recipe,
    planner.variants,
    begin.state,
    processes?.world,
    run.isSharded === true ? processes : undefined,
  );
  const isWriter = (processes?.rank ?? 0) === 0;
  const log = isWriter ? await MetricsLog.open(runPaths(run.folder).metrics, begin.step) : undefined;
  run.onStart?.(begin.step);
  return await new Loop(run, device, log, begin).run();
}

/** The newest checkpoint, or the state before the first step. */
async function beginning({
  folder,
  resume,
  model,
  identity,
  recipe,
  from,
  processes,
}: TrainingRun): Promise<Checkpoint> {
  const { checkpoints } = runPaths(folder);
  await mkdir(checkpoints, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    throw new UserError(`${folder}: the folder cannot be made (${error.code}); choose another`);
  });
  const newest = await newestCheckpoint(checkpoints);
  if (newest === undefined) {
    const state = initialTrainingState(model, recipe.seed, from?.parameters);
    return { state, step: 0, position: 0 };
  }
  if (!resume) {
    throw new UserError(
      `${folder}: holds a training already (${newest}); add --resume, or choose another folder`,
    );
  }
  return await readCheckpoint(newest, model.spec, { ...identity, processes: processes?.world ?? 1 });
}

/** @throws UserError when processes do not begin at the same step, since they do not see the same folder. */
async function checkBeginnings({ processes, folder }: TrainingRun, { step }: Checkpoint): Promise<void> {
  const all = await processes?.exchange(new TextEncoder().encode(String(step)));
  const steps = (all ?? []).map((one) => new TextDecoder().decode(one));
  const other = steps.findIndex((one) => one !== steps[0]);
  if (other < 0) return;
  throw new UserError(
    `${folder}: process 0 finds step ${steps[0]}, process ${other} step ${steps[other]}; give a folder that all share`,
  );
}

/** A batch under way, and where the data stands after it. */
interface Coming {
  readonly plan: BatchPlan;
  readonly position: number;
  readonly batch: Promise<Batch>;
}

/** A step that the device has been given, and what was known before its result. */
interface Given {
  readonly step: number;
  readonly started: StartedStep;
  readonly batch: Batch;
  /** When its run resolved, in milliseconds: its metrics are read later. */
  readonly time: number;
}

class Loop {
  readonly #run: TrainingRun;
  readonly #device: DeviceState;
  readonly #planner: BatchPlanner;
  /** Undefined in processes that do not write. */
  readonly #log: MetricsLog | undefined;
  readonly #until: number;
  readonly #coming: Coming[] = [];
  #step: number;
  #position: number;
  #planned: { step: number; position: number };
  /** What the newest line of metrics was about, and the milliseconds since then in which no batch was ready. */
  #lastLine: { step: number; time: number };
  #waited = 0;
  /** Whether a process of several was asked to stop: all see it in the metrics of the same step. */
  #isStopAgreed = false;

  constructor(run: TrainingRun, device: DeviceState, log: MetricsLog | undefined, begin: Checkpoint) {
    this.#run = run;
    this.#planner = run.processes === undefined ? run.planner : sharedPlanner(run.planner, run.processes);
    this.#device = device;
    this.#log = log;
    this.#until = Math.min(run.until ?? run.recipe.steps, run.recipe.steps);
    this.#step = begin.step;
    this.#position = begin.position;
    this.#planned = { step: begin.step, position: begin.position };
    this.#lastLine = { step: begin.step, time: performance.now() };
  }

  async run(): Promise<TrainingOutcome> {
    const { intervals } = this.#run.recipe;
    let given: Given | undefined;
    let saved = this.#step;
    while (this.#step < this.#until && !this.#isStopping()) {
      const next = await this.#giveNext();
      if (given !== undefined) await this.#finish(given);
      given = next;
      const saves = this.#step % intervals.checkpoint === 0;
      const samples = this.#step % intervals.sample === 0 && this.#run.sample !== undefined;
      if (saves || samples) {
        await this.#finish(given);
        given = undefined;
        if (samples && this.#log !== undefined) await this.#run.sample?.(this.#device, this.#step);
        if (saves) await this.#save();
        saved = saves ? this.#step : saved;
      }
    }
    if (given !== undefined) await this.#finish(given);
    if (saved !== this.#step) await this.#save();
    await Promise.allSettled(this.#coming.map(({ batch }) => batch));
    return {
      step: this.#step,
      complete: this.#step >= this.#until,
      state: await this.#device.download(),
    };
  }

  #isStopping(): boolean {
    const { processes, signal } = this.#run;
    return processes === undefined ? signal?.aborted === true : this.#isStopAgreed;
  }

  async #giveNext(): Promise<Given> {
    this.#planAhead();
    const next = this.#coming.shift();
    if (next === undefined) throw new Error('no batch was planned');
    const asked = performance.now();
    const batch = await next.batch;
    this.#waited += performance.now() - asked;
    this.#planAhead();
    const started = await this.#device.start(next.plan.step, batch, this.#run.signal?.aborted);
    this.#step = next.plan.step;
    this.#position = next.position;
    return { step: next.plan.step, started, batch, time: performance.now() };
  }

  #planAhead(): void {
    const { pool } = this.#run;
    while (this.#coming.length < pool.ahead && this.#planned.step < this.#until) {
      const step = this.#planned.step + 1;
      const { plan, position } = this.#planner.plan(step, this.#planned.position);
      const batch = pool.make(plan);
      // A failure is met where the batch is awaited.
      batch.catch(() => undefined);
      this.#coming.push({ plan, position, batch });
      this.#planned = { step, position };
    }
  }

  /** Waits for a step, checks its numbers and logs them. */
  async #finish({ step, started, batch, time }: Given): Promise<void> {
    const { [stopping]: asked = 0, ...metrics } = await started.read();
    if (asked > 0) this.#isStopAgreed = true;
    const { loss = Number.NaN, gradientNorm = Number.NaN } = metrics;
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) await this.#stopAt(step, metrics, batch);
    // The step was read, so nothing reads its batch any more.
    this.#run.pool.recycle(batch);
    this.#run.onStep?.(step);
    const { recipe } = this.#run;
    if (step % recipe.intervals.log !== 0 && step !== this.#until) return;
    const passed = Math.max(1e-3, time - this.#lastLine.time);
    const speed = {
      stepsPerSecond: (1000 * (step - this.#lastLine.step)) / passed,
      waitedForData: Math.min(1, this.#waited / passed),
    };
    this.#lastLine = { step, time };
    this.#waited = 0;
    const rate = learningRate(scheduleOf(recipe), step);
    await this.#log?.add({ step, loss, ...metrics, rate, ...batch.facts, ...speed });
  }

  /** The state is still that before the step: a step that is not finite changes nothing, nor do those after it. */
  async #stopAt(step: number, metrics: Readonly<Record<string, number>>, batch: Batch): Promise<never> {
    const { executor, model, folder } = this.#run;
    const found = await this.#firstOf(
      await findNonFinite(executor, model, this.#device.buffers.parameters, batch),
    );
    const newest = await newestCheckpoint(runPaths(folder).checkpoints);
    const what = Number.isFinite(metrics.loss)
      ? `norm of the gradients is ${metrics.gradientNorm}`
      : `loss is ${metrics.loss}`;
    const where = found === undefined ? 'in the norm alone' : found;
    const rest =
      newest === undefined ? 'no checkpoint was written yet' : `the last good checkpoint is ${newest}`;
    throw new UserError(
      `step ${step}: the ${what}, first in ${where}; ${rest}; lower the learning rate or the limit of the norm`,
    );
  }

  /** What the first process that found something found. */
  async #firstOf(found: string | undefined): Promise<string | undefined> {
    const { processes } = this.#run;
    if (processes === undefined) return found;
    const all = await processes.exchange(new TextEncoder().encode(found ?? ''));
    const texts = all.map((one) => new TextDecoder().decode(one));
    const rank = texts.findIndex((text) => text !== '');
    return rank < 0 ? undefined : `${texts[rank]}, in the batch of process ${rank}`;
  }

  async #save(): Promise<void> {
    if (this.#log === undefined) {
      await this.#device.helpDownload();
      return;
    }
    const { folder, recipe, model, keep = 2, processes } = this.#run;
    const state = await this.#device.download();
    const identity = { ...this.#run.identity, processes: processes?.world ?? 1 };
    const paths = runPaths(folder);
    const checkpoint = { state, step: this.#step, position: this.#position };
    await writeCheckpoint(paths.checkpoints, checkpoint, identity, keep);
    await writeReport(paths, { title: `${model.kind}, ${recipe.preset}`, lines: this.#log.lines });
  }
}
