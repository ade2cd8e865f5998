import type { DType } from '../../tensor/dtype.ts';
import { makeGraph } from '../../tensor/graph.ts';
import { rewriteNodes } from '../../tensor/rewrite.ts';
import { addTo, at } from '../../tensor/shape.ts';
import {
  applyOne,
  copyOf,
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../tensor/tensor.ts';
import { isCollective } from './collectives.ts';
import { resultsOfCall, type Stage, type TakesTail } from './kernel.ts';
import { type Storage, storedBytes } from './storage.ts';
import { resultsOfTail, tailsOf } from './tails.ts';
import { reshaped } from './views.ts';

/** Why a tensor lies in memory as it does. */
export type StorageReason =
  /** bf16: what products make, and what is computed from that. */
  | 'activation'
  /** bf16: what products are given of weights and other tensors that are kept in f32 for all else. */
  | 'operand'
  /** f8e4m3: what products of the precision `fp8` are given, and what attention of that precision makes. */
  | 'quantised'
  /** f32: given from outside. */
  | 'input'
  /** f32: goes to the graph's outputs with no product in between, as gradients of weights, the optimizer and losses do. */
  | 'output'
  /** f32: sums and maxima, such as those of norms and softmax. */
  | 'statistic'
  /** f32: computed from inputs and statistics alone, as timesteps and their angles are. */
  | 'exact'
  /** f32: read or made by what knows nothing else: some kernels, and sums over processes. */
  | 'kernel';

/** A graph whose tensors have a {@link Storage}. */
export interface NarrowedGraph {
  readonly graph: Graph;
  readonly storage: Storage;
  /** Why an f32 tensor is stored as it is. */
  readonly reason: (tensor: Tensor) => StorageReason;
}

/**
 * The precision `bf16` for a graph without calls: matrix products, convolutions and attention multiply bf16 and add up
 * in f32; kernels compute in f32; what lies in memory between them is bf16, except for what {@link StorageReason} names.
 * The model's own types do not change. A tensor that is stored in f32 and that a product reads is copied to bf16 once,
 * whatever the number of products that read it.
 * A bias that a product adds is read as what the product makes is stored.
 * @param takes whether a library computes a node.
 * @param takesTail whether it computes what follows a product too.
 * @param quantised products that multiply f8e4m3 instead, as `quantised` of `quantising.ts` makes them. Default: none.
 */
export function narrowed(
  graph: Graph,
  takes: (node: Node) => boolean,
  takesTail: TakesTail = () => false,
  quantised: ReadonlySet<Node> = new Set(),
): NarrowedGraph {
  const original = { takes, quantised };
  const copied = withCopies(graph, original, takesTail, new StorageChoice(graph, original));
  const choice = new StorageChoice(copied.graph, { takes, quantised: copied.quantised });
  return {
    graph: copied.graph,
    storage: (tensor) => choice.storage(tensor),
    reason: (tensor) => choice.reason(tensor),
  };
}

/** One line of a {@link storageReport}. */
export interface StorageLine {
  readonly dtype: DType;
  readonly reason: StorageReason;
  readonly tensors: number;
  readonly bytes: number;
}

/** What the stages of a narrowed graph make in memory, by dtype and reason, the most bytes first. */
export function storageReport(
  stages: readonly Stage[],
  { storage, reason }: Pick<NarrowedGraph, 'storage' | 'reason'>,
): readonly StorageLine[] {
  const lines = new Map<string, StorageLine>();
  for (const tensor of stages.flatMap(madeBy)) {
    const [dtype, why] = [storage(tensor), reason(tensor)];
    const { tensors, bytes } = lines.get(`${dtype} ${why}`) ?? { tensors: 0, bytes: 0 };
    const all = bytes + storedBytes(tensor, storage);
    lines.set(`${dtype} ${why}`, { dtype, reason: why, tensors: tensors + 1, bytes: all });
  }
  return [...lines.values()].sort((a, b) => b.bytes - a.bytes);
}

function madeBy(stage: Stage): readonly Tensor[] {
  switch (stage.kind) {
    case 'kernel':
      return stage.outputs;
    case 'library':
      return resultsOfCall(stage);
    default:
      return [];
  }
}

/** Sums of fewer elements, such as the gradient of a repetition, are activations and no statistics. */
const leastSummed = 16;

/** Which nodes libraries compute, and which of those multiply f8e4m3. */
interface Policy {
  readonly takes: (node: Node) => boolean;
  readonly quantised: ReadonlySet<Node>;
}

/** Decides how each tensor of a graph is stored. A tensor and its views are one. */
class StorageChoice {
  private readonly policy: Policy;
  /** Tensors widened from bf16 that are outputs: others are views. */
  private readonly widened = new Set<Node>();
  private readonly uses = new Map<Tensor, Use[]>();
  private readonly outputs = new Set<Tensor>();
  private readonly exact = new Set<Tensor>();
  private readonly reasons = new Map<Tensor, StorageReason>();

  constructor(graph: Graph, policy: Policy) {
    this.policy = policy;
    for (const output of graph.outputs) {
      const { node } = reshaped(output);
      if (isWidening(node)) this.widened.add(node);
    }
    for (const node of graph.nodes) this.noteUses(node);
    graph.outputs.forEach((output) => {
      this.noteOutput(output);
    });
    for (const node of graph.nodes) this.noteExact(node);
    for (const node of graph.nodes)
      for (const result of resultsOf(node))
        if (!this.isView(node)) this.reasons.set(result, this.choose(result));
  }

  storage(tensor: Tensor): DType {
    const whole = this.viewed(tensor);
    if (whole.dtype !== 'f32') return whole.dtype;
    switch (this.reasons.get(whole)) {
      case 'quantised':
        return 'f8e4m3';
      case 'activation':
      case 'operand':
        return 'bf16';
      default:
        return 'f32';
    }
  }

  reason(tensor: Tensor): StorageReason {
    return this.reasons.get(this.viewed(tensor)) ?? 'kernel';
  }

  /** Whether a node is its operand in memory. */
  private isView(node: Node): boolean {
    return node.op === 'reshape' || (isWidening(node) && !this.widened.has(node));
  }

  /** What a tensor is a view of: itself, unless it is a reshape or bf16 under the name of f32. */
  private viewed(tensor: Tensor): Tensor {
    let found = tensor;
    while (this.isView(found.node)) found = at(operandsOf(found.node), 0);
    return found;
  }

  private noteUses(node: Node): void {
    if (this.isView(node)) return;
    operandsOf(node).forEach((operand, index) => {
      addTo(this.uses, this.viewed(operand), { node, index });
    });
  }

  private usesOf(tensor: Tensor): readonly Use[] {
    return this.uses.get(tensor) ?? [];
  }

  /** Notes what goes to an output without a product or a sum over rows in between. */
  private noteOutput(output: Tensor): void {
    const pending = [output];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const tensor = this.viewed(next);
      if (this.outputs.has(tensor)) continue;
      this.outputs.add(tensor);
      const { node } = tensor;
      // A maximum, such as the scale of a row in f8e4m3, is as good as the value that it is of.
      if (isProduct(node) || node.op === 'scatterAdd' || node.op === 'max') continue;
      if (node.op === 'sum' && isOverRows(node)) {
        // Such as the gradient of a bias; but products that are only added up are parts of a sum.
        const x = this.viewed(node.operands[0]);
        if (isProduct(x.node) && this.usesOf(x).length === 1) pending.push(x);
      } else pending.push(...operandsOf(node));
    }
  }

  private noteExact(node: Node): void {
    if (this.isView(node) || isProduct(node)) return;
    const isExact = isStatistic(node) || operandsOf(node).every((operand) => this.isExact(operand));
    if (isExact) for (const result of resultsOf(node)) this.exact.add(result);
  }

  private isExact(tensor: Tensor): boolean {
    const whole = this.viewed(tensor);
    return whole.dtype !== 'f32' || this.exact.has(whole);
  }

  private choose(tensor: Tensor): StorageReason {
    const { node, index } = tensor;
    if (node.op === 'input' || node.op === 'constant') return 'input';
    const { takes, quantised } = this.policy;
    const isLogSum = node.op === 'attention' && index === 1;
    if (node.op === 'attention' && !isLogSum && quantised.has(node)) return 'quantised';
    if (this.outputs.has(tensor)) return 'output';
    if (isLogSum || isStatistic(node)) return 'statistic';
    const isWide = node.op === 'scatterAdd' || isCollective(node);
    if (isWide || (isProduct(node) && !takes(node))) return 'kernel';
    const uses = this.usesOf(tensor).map(({ node: user, index: operand }) =>
      wanted(user, operand, this.policy),
    );
    if (uses.length > 0 && uses.every((use) => use === 'f8e4m3')) return 'quantised';
    if (uses.length > 0 && uses.every((use) => use === 'f32')) return 'kernel';
    if (isCopy(node)) return 'operand';
    if (!this.exact.has(tensor)) return 'activation';
    return uses.length > 0 && uses.every((use) => use === 'bf16') ? 'operand' : 'exact';
  }
}

type Wanted = 'f32' | 'bf16' | 'f8e4m3';

interface Use {
  readonly node: Node;
  /** Number of the operand. */
  readonly index: number;
}

/** How a node wants an f32 operand to be stored; undefined where it reads any. */
function wanted(node: Node, index: number, { takes, quantised }: Policy): Wanted | undefined {
  if (quantised.has(node)) return 'f8e4m3';
  switch (node.op) {
    case 'matmul':
    case 'convolution':
    case 'convolutionInputGradient':
    case 'convolutionKernelGradient':
      return 'bf16';
    case 'attention':
      return takes(node) ? 'bf16' : 'f32';
    case 'attentionGradient':
      return takes(node) && index !== 4 ? 'bf16' : 'f32';
    default:
      return isCollective(node) ? 'f32' : undefined;
  }
}

/** The graph with copies where a product, its bias or an exchange wants a tensor stored otherwise than it is. */
function withCopies(
  graph: Graph,
  policy: Policy,
  takesTail: TakesTail,
  choice: StorageChoice,
): { readonly graph: Graph; readonly quantised: ReadonlySet<Node> } {
  const copies: Readonly<Record<Wanted, Map<Tensor, Tensor>>> = {
    f32: new Map(),
    bf16: new Map(),
    f8e4m3: new Map(),
  };
  const biases = narrowBiases(graph, policy.takes, takesTail, (tensor) => choice.storage(tensor));
  const quantised = new Set<Node>();
  const outputs = rewriteNodes(graph, (node, operands) => {
    if (!isProduct(node) && !isCollective(node) && !biases.has(node)) return undefined;
    const given = operandsOf(node).map((original, index) => {
      const want = biases.get(node) === original ? 'bf16' : wanted(node, index, policy);
      const operand = at(operands, index);
      const fits = operand.dtype !== 'f32' || want === undefined || choice.storage(original) === want;
      return fits ? operand : copied(operand, copies[want]);
    });
    const made = copyOf(node, given);
    if (policy.quantised.has(node)) for (const result of made) quantised.add(result.node);
    return made;
  });
  return { graph: makeGraph(graph.name, graph.inputs, outputs, graph.outputNames), quantised };
}

/** Biases that a library adds to products that it writes in bf16, by the sums that they are added in. */
function narrowBiases(
  graph: Graph,
  takes: (node: Node) => boolean,
  takesTail: TakesTail,
  storage: Storage,
): ReadonlyMap<Node, Tensor> {
  const tails = tailsOf(graph, takes, storage).filter((tail) => {
    const { operands } = tail.product;
    const asRead: Storage = (tensor) => (operands.includes(tensor) ? 'bf16' : storage(tensor));
    return resultsOfTail(tail).every((made) => storage(made) === 'bf16') && takesTail(tail, asRead);
  });
  return new Map(tails.map(({ sum, bias }) => [sum.node, bias]));
}

function copied(operand: Tensor, copies: Map<Tensor, Tensor>): Tensor {
  const whole = reshaped(operand);
  const copy = copies.get(whole) ?? applyOne('cast', [whole], { dtype: whole.dtype });
  copies.set(whole, copy);
  return copy.reshape(operand.shape);
}

/** Whether a node is a tensor written anew, in another storage. */
export function isCopy(node: Node): node is NodeOf<'cast'> {
  return node.op === 'cast' && node.operands[0].dtype === at(node.results, 0).dtype;
}

/** Whether a node is a sum of products, which libraries compute. */
export function isProduct({ op }: Node): boolean {
  return products.has(op);
}

const products: ReadonlySet<Node['op']> = new Set([
  'matmul',
  'convolution',
  'convolutionInputGradient',
  'convolutionKernelGradient',
  'attention',
  'attentionGradient',
]);

function isStatistic(node: Node): node is NodeOf<'sum' | 'max'> {
  if (node.op !== 'sum' && node.op !== 'max') return false;
  const { shape } = node.operands[0];
  const { axes } = node.attributes;
  const summed = axes.reduce((product, axis) => product * at(shape, axis), 1);
  const kept = shape.filter((size, axis) => size > 1 && !axes.includes(axis));
  return summed >= leastSummed || kept.length <= 1;
}

/** Whether a sum keeps the last axis. */
function isOverRows({ operands: [x], attributes: { axes } }: NodeOf<'sum'>): boolean {
  return axes.length > 0 && !axes.includes(x.rank - 1);
}

/** Whether a node gives bf16 the name of f32, whose bits need not change. */
export function isWidening(node: Node): node is NodeOf<'cast'> {
  return node.op === 'cast' && node.operands[0].dtype === 'bf16' && at(node.results, 0).dtype === 'f32';
}
