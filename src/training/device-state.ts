import {
  type DeviceBuffer,
  disposeAll,
  downloadTree,
  type Executable,
  type Executor,
  uploadTree,
} from '../executors/executor.ts';
import { leaves, withLeaves } from '../tensor/tree.ts';
import type { Batch, BatchPlanner } from './batch.ts';
import type { CommonRecipe } from './recipe.ts';
import { type HostState, stepNumbers, type TrainingModel, type TrainingState, traceStep } from './step.ts';

/** A compiled step and the names of its metrics. */
interface CompiledStep {
  readonly executable: Executable;
  readonly metrics: readonly string[];
}

/** A step that was started: its metrics, to be read when they exist. */
export interface StartedStep {
  /** Waits for the step and gives its metrics by name. */
  read(): Promise<Readonly<Record<string, number>>>;
}

/** The training state on an executor, and the compiled steps that move it on. Dispose it to free both. */
export class DeviceState implements Disposable {
  readonly #executor: Executor;
  readonly #recipe: CommonRecipe;
  readonly #steps: ReadonlyMap<string, CompiledStep>;
  readonly #processes: number;
  /** The state as it was at first: the form of those after it. */
  readonly #form: TrainingState<DeviceBuffer>;
  /** The state's buffers in the order of the form's leaves: a step is too short for going through trees. */
  #state: readonly DeviceBuffer[];

  private constructor(
    executor: Executor,
    recipe: CommonRecipe,
    steps: ReadonlyMap<string, CompiledStep>,
    processes: number,
    state: TrainingState<DeviceBuffer>,
  ) {
    this.#executor = executor;
    this.#recipe = recipe;
    this.#steps = steps;
    this.#processes = processes;
    this.#form = state;
    this.#state = leaves(state) as DeviceBuffer[];
  }

  /**
   * Compiles the step of every variant, and uploads the state.
   * @param processes how many make each step together. Default 1.
   */
  static async open(
    executor: Executor,
    model: TrainingModel,
    recipe: CommonRecipe,
    variants: BatchPlanner['variants'],
    state: HostState,
    processes = 1,
  ): Promise<DeviceState> {
    const steps = new Map<string, CompiledStep>();
    for (const [name, types] of variants) {
      const { graph, donate, metrics } = traceStep(model, types, recipe, processes);
      steps.set(name, { executable: await executor.compile(graph, { donate }), metrics });
    }
    return new DeviceState(
      executor,
      recipe,
      steps,
      processes,
      uploadTree(executor, state) as TrainingState<DeviceBuffer>,
    );
  }

  /** The state's buffers, until the next step. */
  get buffers(): TrainingState<DeviceBuffer> {
    return withLeaves(this.#form, this.#state) as TrainingState<DeviceBuffer>;
  }

  /**
   * Starts step `step`, counted from 1; resolves when its outputs exist or are queued.
   * @param isStopping tells the other processes, if there are any, that this one was asked to stop.
   */
  async start(step: number, batch: Batch, isStopping = false): Promise<StartedStep> {
    const compiled = this.#steps.get(batch.variant);
    if (compiled === undefined) throw new Error(`no step was compiled for ${batch.variant}`);
    const told = this.#processes === 1 ? undefined : isStopping;
    const numbers = this.#executor.upload(stepNumbers(this.#recipe, step, told));
    const given = uploadTree(this.#executor, batch.values as object);
    const running = this.#executor.run(compiled.executable, [
      ...this.#state,
      ...(leaves(given) as DeviceBuffer[]),
      numbers,
    ]);
    // The run was called: what only it reads may be disposed.
    disposeAll([given, numbers]);
    const [metrics, ...state] = await running;
    if (metrics === undefined) throw new Error('a step gave nothing');
    this.#state = state;
    return { read: () => this.#read(metrics, compiled.metrics) };
  }

  /** The state's values. */
  async download(): Promise<HostState> {
    return (await downloadTree(this.#executor, this.buffers)) as HostState;
  }

  [Symbol.dispose](): void {
    disposeAll([...this.#state]);
    for (const { executable } of this.#steps.values()) executable[Symbol.dispose]();
  }

  async #read(metrics: DeviceBuffer, names: readonly string[]): Promise<Readonly<Record<string, number>>> {
    using buffer = metrics;
    const { data } = await this.#executor.download(buffer);
    return Object.fromEntries(names.map((name, index) => [name, data[index] ?? Number.NaN]));
  }
}
