import { type DType, isFloat } from './dtype.ts';
import {
  addTo,
  at,
  formatType,
  GraphError,
  normalizeAxis,
  type Shape,
  sameShape,
  type TensorType,
} from './shape.ts';
import { type ShapeRule, shapeRules } from './shape-rules.ts';
import type { Attributes, Op, Operands } from './vocabulary.ts';

/** One operation in a graph. Nodes are immutable and know only their operands; a graph is what its outputs reach. */
export interface NodeOf<K extends Op> {
  readonly op: K;
  readonly operands: Operands<K, Tensor>;
  readonly attributes: Attributes<K, Graph>;
  /** The results, of types by the op's shape rule. */
  readonly results: readonly Tensor[];
  /** Creation order over the process: operands always have a smaller one, so sorting by it orders a graph. */
  readonly id: number;
  /** Where the node was made; its stack is formatted only when an error message wants it. */
  readonly origin: { readonly stack?: string };
}

/** A node of any operation, discriminated by `op`. */
export type Node = { [K in Op]: NodeOf<K> }[Op];

/** A closed computation: what its outputs need, down to its inputs. Immutable; compared by identity. */
export interface Graph {
  readonly name: string;
  /** Results of `input` nodes, in the order in which values are given. */
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** One name per output, unique, for printing and for binding. */
  readonly outputNames: readonly string[];
  /** Every node that the outputs need, and every input, operands first. */
  readonly nodes: readonly Node[];
  /** When set, this graph is `base` with further outputs appended; a call of it can stand in for one of `base`. */
  readonly base?: Graph;
}

let nextId = 0;

/**
 * A symbolic value: the result of a node. It has a static shape and dtype and owns no memory.
 *
 * Methods are the arithmetic and shape operations, so that formulas read from left to right; operands may be plain
 * numbers, which become constants of the tensor's dtype. Network operations are the functions of `functions.ts`.
 * Every method throws {@link GraphError} when shapes or dtypes do not fit.
 */
export class Tensor implements TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly node: Node;
  /** Which of the node's results this is. */
  readonly index: number;

  /** Use {@link apply}, which checks the operands: a result of a node is one object, which can be a key of maps. */
  constructor(node: Node, index: number, { shape, dtype }: TensorType) {
    this.shape = shape;
    this.dtype = dtype;
    this.node = node;
    this.index = index;
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  /** -x. */
  neg(): Tensor {
    return applyOne('neg', [this], {});
  }
  /** |x|. */
  abs(): Tensor {
    return applyOne('abs', [this], {});
  }
  /** e^x. */
  exp(): Tensor {
    return applyOne('exp', [this], {});
  }
  /** Natural logarithm. */
  log(): Tensor {
    return applyOne('log', [this], {});
  }
  /** Square root. */
  sqrt(): Tensor {
    return applyOne('sqrt', [this], {});
  }
  /** Sine of radians. */
  sin(): Tensor {
    return applyOne('sin', [this], {});
  }
  /** Cosine of radians. */
  cos(): Tensor {
    return applyOne('cos', [this], {});
  }
  /** Hyperbolic tangent. */
  tanh(): Tensor {
    return applyOne('tanh', [this], {});
  }
  /** 1 / (1 + e^-x). */
  sigmoid(): Tensor {
    return applyOne('sigmoid', [this], {});
  }
  /** x times itself. */
  square(): Tensor {
    return this.mul(this);
  }

  /** Sum with broadcasting. */
  add(other: Tensor | number): Tensor {
    return applyOne('add', [this, this.like(other)], {});
  }
  /** Difference with broadcasting. */
  sub(other: Tensor | number): Tensor {
    return applyOne('sub', [this, this.like(other)], {});
  }
  /** Product with broadcasting. */
  mul(other: Tensor | number): Tensor {
    return applyOne('mul', [this, this.like(other)], {});
  }
  /** Quotient with broadcasting. */
  div(other: Tensor | number): Tensor {
    return applyOne('div', [this, this.like(other)], {});
  }
  /** Elementwise larger with broadcasting. */
  maximum(other: Tensor | number): Tensor {
    return applyOne('maximum', [this, this.like(other)], {});
  }
  /** Elementwise smaller with broadcasting. */
  minimum(other: Tensor | number): Tensor {
    return applyOne('minimum', [this, this.like(other)], {});
  }
  /** x = other, as bool. */
  equal(other: Tensor | number): Tensor {
    return applyOne('equal', [this, this.like(other)], {});
  }
  /** x < other, as bool. */
  less(other: Tensor | number): Tensor {
    return applyOne('less', [this, this.like(other)], {});
  }
  /** x in another dtype; itself when it has it already. */
  cast(dtype: DType): Tensor {
    return dtype === this.dtype ? this : applyOne('cast', [this], { dtype });
  }

  /** Sum over `axes` (negative ones count from the end; default all), dropping them unless `keepDims`. */
  sum(axes: readonly number[] = allAxes(this), keepDims = false): Tensor {
    return applyOne('sum', [this], { axes: this.sortedAxes(axes), keepDims });
  }
  /** Mean over `axes`, as {@link sum} takes them. */
  mean(axes: readonly number[] = allAxes(this), keepDims = false): Tensor {
    const count = this.sortedAxes(axes).reduce((product, axis) => product * at(this.shape, axis), 1);
    return this.sum(axes, keepDims).mul(1 / count);
  }
  /** Maximum over `axes`, as {@link sum} takes them. */
  max(axes: readonly number[] = allAxes(this), keepDims = false): Tensor {
    return applyOne('max', [this], { axes: this.sortedAxes(axes), keepDims });
  }

  /** The same elements under another shape; one size may be -1 and is then what is left over. */
  reshape(shape: Shape): Tensor {
    const given = shape.reduce((product, size) => (size === -1 ? product : product * size), 1);
    const total = this.shape.reduce((product, size) => product * size, 1);
    const resolved = shape.map((size) => (size === -1 ? total / given : size));
    return sameShape(resolved, this.shape) ? this : applyOne('reshape', [this], { shape: resolved });
  }
  /** Axes in another order: axis i of the result is axis `permutation[i]` of x. Default: the last two swapped. */
  transpose(permutation: readonly number[] = swapLastTwo(this.rank)): Tensor {
    return permutation.length === this.rank && permutation.every((axis, i) => axis === i)
      ? this
      : applyOne('transpose', [this], { permutation });
  }
  /** x repeated along axes of size 1 and new leading axes. */
  broadcastTo(shape: Shape): Tensor {
    return sameShape(shape, this.shape) ? this : applyOne('broadcast', [this], { shape });
  }
  /** Elements `start` <= i < `end` (default: to the end) along one axis. */
  slice(axis: number, start: number, end?: number): Tensor {
    const sliced = normalizeAxis(axis, this.rank);
    const ends = this.shape.map((size, i) => (i === sliced ? (end ?? size) : size));
    const starts = this.shape.map((_, i) => (i === sliced ? start : 0));
    return sameShape(ends, this.shape) && start === 0 ? this : applyOne('slice', [this], { starts, ends });
  }
  /** Cuts one axis into pieces of the given sizes, which must add up to it. */
  split(axis: number, sizes: readonly number[]): Tensor[] {
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const size = at(this.shape, normalizeAxis(axis, this.rank));
    if (total !== size)
      throw new GraphError(`split: sizes ${sizes} add up to ${total}, the axis has ${size}`);
    let start = 0;
    return sizes.map((length) => {
      start += length;
      return this.slice(axis, start - length, start);
    });
  }

  /** A number as a constant of this tensor's dtype; a tensor as it is. */
  private like(other: Tensor | number): Tensor {
    return typeof other === 'number' ? constant([other], [], this.dtype) : other;
  }

  private sortedAxes(axes: readonly number[]): number[] {
    return axes.map((axis) => normalizeAxis(axis, this.rank)).sort((a, b) => a - b);
  }
}

/**
 * Adds a node: the one way in which graphs grow.
 *
 * @param origin where the node comes from, when it is a rewritten form of another; default: the caller.
 * @returns one tensor per result of the operation.
 * @throws GraphError naming the operation and its operands when its shape rule refuses them.
 */
export function apply<K extends Op>(
  op: K,
  operands: Operands<K, Tensor>,
  attributes: Attributes<K, Graph>,
  origin: Node['origin'] = captureOrigin(),
): readonly Tensor[] {
  return newNode(op, operands, attributes, inferTypes(op, operands, attributes), origin);
}

/**
 * A node's operation on other operands.
 * @returns one tensor per result; the node's own when its operands are the same.
 * @throws GraphError when they are of other types, which its shape rule refuses.
 */
export function applyAgain(node: Node, operands: readonly Tensor[]): readonly Tensor[] {
  const isSame = operandsOf(node).every((operand, index) => operand === operands[index]);
  return isSame ? node.results : copyOf(node, operands);
}

/** {@link applyAgain}, but always a new node. */
export function copyOf(node: Node, operands: readonly Tensor[]): readonly Tensor[] {
  const own = operandsOf(node);
  const isAlike = own.every((operand, index) => isOfType(operand, operands[index]));
  if (isAlike && own.length === operands.length)
    return newNode(node.op, operands, node.attributes, node.results, node.origin);
  // The operation and its attributes are the node's own; only TypeScript loses the link between them.
  return apply(node.op as 'concat', operands, node.attributes as Attributes<'concat'>, node.origin);
}

function isOfType(a: Tensor, b: Tensor | undefined): boolean {
  return b !== undefined && a.dtype === b.dtype && (a.shape === b.shape || sameShape(a.shape, b.shape));
}

function newNode(
  op: Op,
  operands: readonly (Tensor | undefined)[],
  attributes: Node['attributes'],
  types: readonly TensorType[],
  origin: Node['origin'],
): readonly Tensor[] {
  const results: Tensor[] = [];
  // One member of the union that Node is; TypeScript cannot follow the link between an op and its member.
  const node = { op, operands, attributes, results, id: nextId++, origin } as unknown as Node;
  for (const type of types) results.push(new Tensor(node, results.length, type));
  return results;
}

function captureOrigin(): Node['origin'] {
  const origin: Node['origin'] = {};
  Error.captureStackTrace?.(origin, apply);
  return origin;
}

/** {@link apply} for an operation with a single result. */
export function applyOne<K extends Op>(
  op: K,
  operands: Operands<K, Tensor>,
  attributes: Attributes<K, Graph>,
): Tensor {
  return at(apply(op, operands, attributes), 0);
}

/** Result types of an operation on operands of the given types. Throws {@link GraphError} naming the operation. */
export function inferTypes<K extends Op>(
  op: K,
  operands: Operands<K, TensorType>,
  attributes: Attributes<K, Graph>,
): readonly TensorType[] {
  const rule: ShapeRule<K> = shapeRules[op];
  try {
    return rule(operands, attributes as Attributes<K>);
  } catch (error) {
    if (!(error instanceof GraphError)) throw error;
    const given = (operands as readonly TensorType[]).map(formatType).join(', ');
    throw new GraphError(`${op}(${given}): ${error.message}`, { cause: error });
  }
}

/** A tensor of known values: one that fills `shape`, or one per element in row-major order. */
export function constant(
  values: readonly number[],
  shape: Shape = [values.length],
  dtype: DType = 'f32',
): Tensor {
  return applyOne('constant', [], { shape, dtype, values });
}

/** A tensor of zeros. */
export function zeros({ shape, dtype }: TensorType): Tensor {
  return constant([0], shape, dtype);
}

/** Operands of a node of any operation, as a list. */
export function operandsOf(node: Node): readonly Tensor[] {
  // Optional operands that were not given are absent or undefined in their tuple.
  const operands = node.operands as readonly (Tensor | undefined)[];
  return isGiven(operands) ? operands : operands.filter((operand) => operand !== undefined);
}

function isGiven(operands: readonly (Tensor | undefined)[]): operands is readonly Tensor[] {
  return !operands.includes(undefined);
}

/** Results of a node of any operation, as a list. */
export function resultsOf(node: Node): readonly Tensor[] {
  return node.results;
}

/** Every node that `tensors` need, operands first. */
export function nodesOf(tensors: readonly Tensor[]): Node[] {
  const found = new Set<Node>();
  const pending = tensors.map(({ node }) => node);
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (found.has(node)) continue;
    found.add(node);
    for (const operand of operandsOf(node)) pending.push(operand.node);
  }
  return [...found].sort((a, b) => a.id - b.id);
}

/** The nodes that read each node's results, once for each operand. */
export function usersOf(nodes: readonly Node[]): ReadonlyMap<Node, readonly Node[]> {
  const users = new Map<Node, Node[]>();
  for (const node of nodes) for (const { node: operand } of operandsOf(node)) addTo(users, operand, node);
  return users;
}

/** Whether gradients can flow into `tensor`. */
export function isDifferentiable(tensor: Tensor): boolean {
  return isFloat(tensor.dtype);
}

function allAxes(x: Tensor): number[] {
  return x.shape.map((_, axis) => axis);
}

function swapLastTwo(rank: number): number[] {
  if (rank < 2) throw new GraphError(`transpose: needs two axes, got ${rank}`);
  return Array.from({ length: rank }, (_, axis) => (axis < rank - 2 ? axis : 2 * rank - 3 - axis));
}
