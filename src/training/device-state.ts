import {
  type DeviceBuffer,
  disposeAll,
  downloadTree,
  type Executable,
  type Executor,
  uploadTree,
} from '../executors/executor.ts';
import { allGather } from '../tensor/functions.ts';
import { input, makeGraph } from '../tensor/graph.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { at, formatType } from '../tensor/shape.ts';
import { leaves, mapTree, withLeaves } from '../tensor/tree.ts';
import type { Batch, BatchPlanner } from './batch.ts';
import type { CommonRecipe } from './recipe.ts';
import { isDivided, partOf, partsOf, type Share } from './shares.ts';
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
  /** Where this process has its part of the moments alone: which. */
  readonly #share: Share | undefined;
  /** What puts parts together, by their type. */
  readonly #gathers = new Map<string, Executable>();
  /** The state as it was at first: the form of those after it. */
  readonly #form: TrainingState<DeviceBuffer>;
  /** The state's buffers in the order of the form's leaves: a step is too short for going through trees. */
  #state: readonly DeviceBuffer[];

  private constructor(
    executor: Executor,
    recipe: CommonRecipe,
    steps: ReadonlyMap<string, CompiledStep>,
    processes: number,
    share: Share | undefined,
    state: TrainingState<DeviceBuffer>,
  ) {
    this.#executor = executor;
    this.#recipe = recipe;
    this.#steps = steps;
    this.#processes = processes;
    this.#share = share;
    this.#form = state;
    this.#state = leaves(state) as DeviceBuffer[];
  }

  /**
   * Compiles the step of every variant, and uploads the state.
   * @param processes how many make each step together. Default 1.
   * @param share this process among them, if it is to have its part of the moments alone. Default: all of them.
   */
  static async open(
    executor: Executor,
    model: TrainingModel,
    recipe: CommonRecipe,
    variants: BatchPlanner['variants'],
    state: HostState,
    processes = 1,
    share?: Share,
  ): Promise<DeviceState> {
    const steps = new Map<string, CompiledStep>();
    for (const [name, types] of variants) {
      const { graph, donate, metrics } = traceStep(model, types, recipe, processes, share !== undefined);
      steps.set(name, { executable: await executor.compile(graph, { donate }), metrics });
    }
    const { parameters, moments } = state;
    const part = (leaf: HostTensor) => partOf(leaf, share ?? { rank: 0, world: 1 });
    const own = share && {
      moments: mapTree(moments, (leaf) => part(leaf as HostTensor)),
      own: partsOf(parameters, share.world, part),
    };
    const uploaded = uploadTree(executor, { ...state, ...own }) as TrainingState<DeviceBuffer>;
    return new DeviceState(executor, recipe, steps, processes, share, uploaded);
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

  /**
   * The state's values, the same in every process. Where each has its part of the moments, they have to put them together:
   * the others call this at the same step too, or {@link helpDownload}.
   */
  async download(): Promise<HostState> {
    const { parameters, moments, average, alive } = this.buffers;
    const values = async (tree: object): Promise<object> => await downloadTree(this.#executor, tree);
    const whole = async (tree: object): Promise<object> =>
      withLeaves(tree, await this.#wholes(tree, (buffer) => this.#executor.download(buffer)));
    const mean = await whole(moments.mean);
    const square = await whole(moments.square);
    return {
      parameters: await values(parameters),
      moments: { mean, square },
      average: await values(average),
      alive: await this.#executor.download(alive),
    };
  }

  /** Lets another process {@link download} the state, of which this one has its part. */
  async helpDownload(): Promise<void> {
    if (this.#share === undefined) return;
    const { mean, square } = this.buffers.moments;
    for (const tree of [mean, square]) await this.#wholes(tree, async () => undefined);
  }

  [Symbol.dispose](): void {
    disposeAll([...this.#state]);
    for (const gather of this.#gathers.values()) gather[Symbol.dispose]();
    for (const { executable } of this.#steps.values()) executable[Symbol.dispose]();
  }

  /** What `take` makes of each leaf of a tree of moments as a whole. */
  async #wholes<Value>(tree: object, take: (buffer: DeviceBuffer) => Promise<Value>): Promise<Value[]> {
    const shapes = (leaves(this.#form.average) as DeviceBuffer[]).map(({ shape }) => shape);
    const taken: Value[] = [];
    for (const [index, leaf] of leaves(tree).entries()) {
      const buffer = leaf as DeviceBuffer;
      const world = this.#share?.world ?? 1;
      using whole = isDivided(at(shapes, index), world) ? await this.#gathered(buffer, world) : undefined;
      taken.push(await take(whole ?? buffer));
    }
    return taken;
  }

  /** A tensor whose parts the processes have. */
  async #gathered(part: DeviceBuffer, world: number): Promise<DeviceBuffer> {
    const key = formatType(part);
    let gather = this.#gathers.get(key);
    if (gather === undefined) {
      const x = input('part', part);
      gather = await this.#executor.compile(makeGraph('put together', [x], [allGather(x, world)]));
      this.#gathers.set(key, gather);
    }
    const [whole] = await this.#executor.run(gather, [part]);
    if (whole === undefined) throw new Error('parts gave nothing');
    return whole;
  }

  async #read(metrics: DeviceBuffer, names: readonly string[]): Promise<Readonly<Record<string, number>>> {
    using buffer = metrics;
    const { data } = await this.#executor.download(buffer);
    return Object.fromEntries(names.map((name, index) => [name, data[index] ?? Number.NaN]));
  }
}
