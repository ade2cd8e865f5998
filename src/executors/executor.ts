import type { HostTensor } from '../tensor/host-tensor.ts';
import { formatShape, sameShape, type TensorType } from '../tensor/shape.ts';
import type { Graph } from '../tensor/tensor.ts';
import { entries, leaves, type TreeOf, withLeaves } from '../tensor/tree.ts';

/**
 * Something that runs graphs: the one interface between models and machines.
 *
 * **Ordering.** `upload`, `run` and `download` take effect in the order in which they are called, whether or not the
 * earlier ones were awaited.
 * **Blocking.** Nothing blocks the event loop for long. `upload` returns at once, having copied the values. `run`
 * resolves when its outputs exist or their computation is queued; `download` waits for the values.
 * **Ownership.** Every buffer that `upload` or `run` returns belongs to the caller, who disposes it; a buffer may be
 * disposed as soon as the last call that reads it was made. Inputs stay valid after a run, except donated ones, whose
 * memory outputs may take over: the run disposes them. Garbage collection is never relied on; see {@link BufferScope}.
 * **Errors.** A failed run rejects and gives no outputs; donated inputs are gone, the others as they were.
 */
export interface Executor extends AsyncDisposable {
  /** What runs the graphs, for messages: `reference`, `onnx cpu`. */
  readonly name: string;
  /**
   * What it runs in place of what it should, and why, such as when a library cannot be loaded; undefined when there is nothing
   * of the kind. Left out where there is no choice.
   */
  fallback?(): Promise<string | undefined>;
  /**
   * What became of the operators of our own that it adds to its library; undefined where it would add none. Left out by those
   * that never do.
   */
  ownOperators?(): Promise<OwnOperators | undefined>;
  /** Threads of the CPU that it was told to use; undefined where it was not, or does not compute there. */
  readonly threads?: number;
  /**
   * Prepares a graph. Compiling a graph, or a graph that calls the same subgraphs, again reuses what was prepared.
   * @throws GraphError when the graph is malformed, ExecutorError when this executor cannot run it.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Executable>;
  /** A buffer with these values, which are copied before it returns. */
  upload(tensor: HostTensor): DeviceBuffer;
  /**
   * Lets the device read shared memory by itself, where it can: tensors that lie in it are not copied by `upload`, so
   * they must stay as they are until something was downloaded that was queued after it. Dispose the result to end that.
   * Left out by executors that could not gain from it.
   */
  pin?(memory: SharedArrayBuffer): Disposable;
  /** The values of a buffer, in new memory. */
  download(buffer: DeviceBuffer): Promise<HostTensor>;
  /**
   * Runs an executable on one buffer per graph input, in the graph's order, and returns one per output. A buffer may be
   * given for several inputs, but not when one of them is donated.
   * @throws ExecutorError when buffers do not fit the inputs, are disposed, another executor's, or donated and given again.
   */
  run(executable: Executable, inputs: readonly DeviceBuffer[]): Promise<readonly DeviceBuffer[]>;
}

/** Operators of our own beside those of an executor's library: one of the two is there. */
export interface OwnOperators {
  /** What of the processor they use, such as `x86-64-v3`. */
  readonly level?: string;
  /** Whether they multiply in the precision `bf16`. */
  readonly bfloat16?: boolean;
  /** Why there are none, in one line. */
  readonly problem?: string;
}

/** Names of every {@link Precision}. */
export const precisions = ['fp32', 'tf32', 'bf16', 'fp8'] as const;

/**
 * How executors that offer a choice compute graphs of f32 tensors. `fp32`: exactly so. `tf32`: matrix products in TF32 (19
 * bits), convolutions and attention in bfloat16, all else in float32. `bf16`: all products in bfloat16, and what lies in
 * memory between them too; inputs, outputs and sums stay float32. `fp8`: as `bf16`, but large linear layers and attention
 * over whole rows multiply f8e4m3, scaled at run time; for forward graphs: with gradients in it a graph is computed as in
 * `bf16`. On the CPU, which offers `fp32` and `bf16`, the latter rounds operands of matrix products alone.
 */
export type Precision = (typeof precisions)[number];

/** Settings of {@link Executor.compile}. */
export interface CompileOptions {
  /** Indices of inputs that every run may overwrite, such as weights and moments of a training step. Default: none. */
  readonly donate?: readonly number[];
  /**
   * Indices of inputs for which run after run is given the same buffers, such as weights of a model that makes videos. What
   * is computed of them alone may be kept from run to run; with other buffers it is computed again. Default: none.
   */
  readonly fixed?: readonly number[];
}

/** A compiled graph. Disposing it frees what only it needed; buffers that it made stay valid. */
export interface Executable extends Disposable {
  readonly graph: Graph;
  readonly donated: ReadonlySet<number>;
}

/** Values on a device. */
export interface DeviceBuffer extends TensorType, Disposable {
  /** True once freed, by its owner or by a run it was donated to. */
  readonly disposed: boolean;
}

/** A request that an executor cannot serve: a buffer that does not fit, an operation it lacks, a failure of its library. */
export class ExecutorError extends Error {
  override readonly name = 'ExecutorError';
}

/**
 * Owns buffers until the end of a block: `using scope = new BufferScope()`.
 * What leaves the block is released from the scope first.
 */
export class BufferScope implements Disposable {
  private readonly owned = new Set<DeviceBuffer>();

  /** Takes ownership of every buffer of a tree, and returns the tree. */
  own<Tree extends object>(tree: Tree): Tree {
    for (const buffer of leaves(tree)) this.owned.add(buffer as DeviceBuffer);
    return tree;
  }

  /** Gives ownership of every buffer of a tree back to the caller, and returns the tree. */
  release<Tree extends object>(tree: Tree): Tree {
    for (const buffer of leaves(tree)) this.owned.delete(buffer as DeviceBuffer);
    return tree;
  }

  [Symbol.dispose](): void {
    disposeAll([...this.owned]);
    this.owned.clear();
  }
}

/** Disposes every buffer of a tree. */
export function disposeAll(tree: object): void {
  for (const buffer of leaves(tree)) (buffer as DeviceBuffer)[Symbol.dispose]();
}

/** {@link Executor.upload} for every leaf of a tree. */
export function uploadTree<Tree extends object>(executor: Executor, tree: Tree): TreeOf<Tree, DeviceBuffer> {
  return withLeaves(
    tree,
    leaves(tree).map((leaf) => executor.upload(leaf as HostTensor)),
  );
}

/** {@link Executor.download} for every leaf of a tree. */
export async function downloadTree<Tree extends object>(
  executor: Executor,
  tree: Tree,
): Promise<TreeOf<Tree, HostTensor>> {
  return withLeaves(
    tree,
    await Promise.all(leaves(tree).map((leaf) => executor.download(leaf as DeviceBuffer))),
  );
}

/**
 * Checks that buffers fit a graph's inputs: number, dtype, shape, not disposed, not donated and given again.
 * @throws ExecutorError naming the first input that does not fit.
 */
export function checkInputs({ graph, donated }: Executable, inputs: readonly DeviceBuffer[]): void {
  if (inputs.length !== graph.inputs.length) {
    throw new ExecutorError(`${graph.name} takes ${graph.inputs.length} inputs, got ${inputs.length}`);
  }
  graph.inputs.forEach((expected, index) => {
    const found = inputs[index];
    if (found === undefined || found.disposed) {
      throw new ExecutorError(
        `${graph.name}: input ${inputName(graph, index)} was disposed; pass a live buffer`,
      );
    }
    if (found.dtype !== expected.dtype || !sameShape(found.shape, expected.shape)) {
      const [want, got] = [expected, found].map(({ dtype, shape }) => `${dtype}${formatShape(shape)}`);
      throw new ExecutorError(`${graph.name}: input ${inputName(graph, index)} must be ${want}, got ${got}`);
    }
  });
  checkDonated(graph, donated, inputs);
}

/** What overwrites one input would overwrite the other. */
function checkDonated(graph: Graph, donated: ReadonlySet<number>, inputs: readonly DeviceBuffer[]): void {
  if (donated.size === 0) return;
  const given = new Map<DeviceBuffer, number>();
  for (const [index, buffer] of inputs.entries()) {
    const before = given.get(buffer);
    if (before === undefined) given.set(buffer, index);
    else if (donated.has(index) || donated.has(before)) {
      const [first, second] = [before, index].map((one) => inputName(graph, one));
      throw new ExecutorError(
        `${graph.name}: inputs ${first} and ${second} are one buffer, and one of them is donated; upload it twice`,
      );
    }
  }
}

function inputName(graph: Graph, index: number): string {
  const node = graph.inputs[index]?.node;
  return node?.op === 'input' ? node.attributes.name : String(index);
}

/** Indices of the inputs that belong to the given arguments of a traced function, for {@link CompileOptions.donate}. */
export function inputsOf(parameters: readonly object[], ...argumentIndices: readonly number[]): number[] {
  return entries(parameters).flatMap(([path], index) =>
    argumentIndices.includes(Number(path.split('.')[0])) ? [index] : [],
  );
}
