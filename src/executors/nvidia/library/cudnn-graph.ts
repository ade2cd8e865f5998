import {
  attributes as A,
  attributeTypes,
  type Cudnn,
  CudnnError,
  crossCorrelation,
  cudnnTypes,
  descriptors,
  heuristicModes,
  pointwiseModes,
  reductionOperators,
} from '../bindings/cudnn.ts';
import { NativeMemory } from '../bindings/native.ts';
import type { Launch } from '../kernel-cache.ts';

/** A tensor of a cuDNN graph. */
export interface CudnnTensor {
  readonly id: number;
  readonly sizes: readonly number[];
  readonly descriptor: bigint;
  /** Host memory of a number that is part of the graph; cuDNN reads it at every execution. */
  readonly value?: NativeMemory;
}

/** What a tensor is made from. Strides are in elements, as are ragged offsets. */
export interface TensorSettings {
  readonly sizes: readonly number[];
  readonly strides?: readonly number[];
  readonly type: keyof typeof cudnnTypes;
  /** Exists only within the graph. */
  readonly isVirtual?: boolean;
  /** Where each item of axis 0 begins, i64 [items + 1, 1, 1, 1]. */
  readonly ragged?: CudnnTensor;
}

/** Limits on the rows and columns of a matrix product for each item of axis 0, i32 [items, 1, 1, 1]. */
export interface MatmulLimits {
  readonly m?: CudnnTensor | undefined;
  readonly n?: CudnnTensor | undefined;
  readonly k?: CudnnTensor | undefined;
}

/** Strides, sizes and paddings of a convolution, one entry for each spatial axis. */
export interface ConvolutionSettings {
  readonly kind: 'forward' | 'inputGradient' | 'kernelGradient';
  readonly strides: readonly number[];
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly x: CudnnTensor;
  readonly kernel: CudnnTensor;
  readonly y: CudnnTensor;
}

/** A graph of operations that cuDNN compiles into one kernel or a few. Its descriptors live until it is disposed. */
export class CudnnGraph implements Disposable {
  private readonly cudnn: Cudnn;
  private readonly owned: bigint[] = [];
  private readonly operations: bigint[] = [];
  private readonly numbers: CudnnTensor[] = [];
  private readonly texts: string[] = [];
  private nextId = 1;

  constructor(cudnn: Cudnn) {
    this.cudnn = cudnn;
  }

  /** All that was said of the graph: equal for equal graphs. */
  get text(): string {
    return this.texts.join('\n');
  }

  /** A tensor. Default: dense and row-major. */
  tensor({ sizes, strides = dense(sizes), type, isVirtual = false, ragged }: TensorSettings): CudnnTensor {
    const id = this.nextId++;
    const descriptor = this.describe('tensor', (set) => {
      set.enumeration(A.tensorType, attributeTypes.dataType, cudnnTypes[type]);
      set.integers(A.tensorSizes, sizes);
      set.integers(A.tensorStrides, strides);
      set.integers(A.tensorId, [id]);
      set.integers(A.tensorAlignment, [16]);
      if (isVirtual) set.boolean(A.tensorIsVirtual, true);
      if (ragged !== undefined) set.descriptors(A.tensorRaggedOffsets, [ragged.descriptor]);
    });
    return { id, sizes, descriptor };
  }

  /** A tensor that exists only within the graph. Default type: f32. */
  virtual(sizes: readonly number[], settings: Partial<TensorSettings> = {}): CudnnTensor {
    return this.tensor({ sizes, type: 'f32', ...settings, isVirtual: true });
  }

  /** A number, for graphs of tensors of four axes. */
  number(value: number): CudnnTensor {
    const id = this.nextId++;
    const descriptor = this.describe('tensor', (set) => {
      set.enumeration(A.tensorType, attributeTypes.dataType, cudnnTypes.f32);
      set.integers(A.tensorSizes, [1, 1, 1, 1]);
      set.integers(A.tensorStrides, [1, 1, 1, 1]);
      set.integers(A.tensorId, [id]);
      set.integers(A.tensorAlignment, [16]);
      set.boolean(A.tensorIsByValue, true);
    });
    const tensor = { id, sizes: [1, 1, 1, 1], descriptor, value: NativeMemory.float(value) };
    this.numbers.push(tensor);
    return tensor;
  }

  /** An elementwise operation on one to three tensors, computed in `precision`. Gives `y`. */
  pointwise(
    mode: keyof typeof pointwiseModes,
    operands: readonly CudnnTensor[],
    y: CudnnTensor,
    {
      precision = 'f32',
      axis,
    }: { readonly precision?: keyof typeof cudnnTypes; readonly axis?: number } = {},
  ): CudnnTensor {
    const settings = this.describe('pointwise', (set) => {
      set.enumeration(A.pointwiseMode, attributeTypes.pointwiseMode, pointwiseModes[mode]);
      set.enumeration(A.pointwisePrecision, attributeTypes.dataType, cudnnTypes[precision]);
      if (axis !== undefined) set.integers(A.pointwiseAxis, [axis]);
    });
    this.operation('pointwiseOperation', (set) => {
      set.descriptors(A.pointwiseOperation, [settings]);
      [A.pointwiseX, A.pointwiseB, A.pointwiseT].forEach((attribute, index) => {
        const operand = operands[index];
        if (operand !== undefined) set.descriptors(attribute, [operand.descriptor]);
      });
      set.descriptors(A.pointwiseY, [y.descriptor]);
      set.float(A.pointwiseAlpha1, 1);
      set.float(A.pointwiseAlpha2, 1);
    });
    return y;
  }

  /** The product of the last two axes, within limits. Gives `y`. */
  matmul(a: CudnnTensor, b: CudnnTensor, y: CudnnTensor, { m, n, k }: MatmulLimits = {}): CudnnTensor {
    const settings = this.describe('matmul', (set) => {
      set.enumeration(A.matmulPrecision, attributeTypes.dataType, cudnnTypes.f32);
    });
    this.operation('matmulOperation', (set) => {
      set.descriptors(A.matmulA, [a.descriptor]);
      set.descriptors(A.matmulB, [b.descriptor]);
      set.descriptors(A.matmulC, [y.descriptor]);
      set.descriptors(A.matmulDescriptor, [settings]);
      if (m !== undefined) set.descriptors(A.matmulM, [m.descriptor]);
      if (n !== undefined) set.descriptors(A.matmulN, [n.descriptor]);
      if (k !== undefined) set.descriptors(A.matmulK, [k.descriptor]);
    });
    return y;
  }

  /** Sum or maximum over the axes along which y has size 1. Gives `y`. */
  reduce(operator: keyof typeof reductionOperators, x: CudnnTensor, y: CudnnTensor): CudnnTensor {
    const settings = this.describe('reduction', (set) => {
      set.enumeration(A.reductionPrecision, attributeTypes.dataType, cudnnTypes.f32);
      const number = reductionOperators[operator];
      set.enumeration(A.reductionOperator, attributeTypes.reductionOperator, number);
    });
    this.operation('reductionOperation', (set) => {
      set.descriptors(A.reductionDescriptor, [settings]);
      set.descriptors(A.reductionX, [x.descriptor]);
      set.descriptors(A.reductionY, [y.descriptor]);
    });
    return y;
  }

  /** x under the sizes and strides of y. Gives `y`. */
  reshape(x: CudnnTensor, y: CudnnTensor): CudnnTensor {
    this.operation('reshapeOperation', (set) => {
      set.descriptors(A.reshapeX, [x.descriptor]);
      set.descriptors(A.reshapeY, [y.descriptor]);
    });
    return y;
  }

  /** A convolution or one of its gradients; sizes of the tensors are in the order N, C, ..spatial. */
  convolution({ kind, strides, before, after, x, kernel, y }: ConvolutionSettings): void {
    const settings = this.describe('convolution', (set) => {
      set.enumeration(A.convolutionPrecision, attributeTypes.dataType, cudnnTypes.f32);
      set.enumeration(A.convolutionMode, attributeTypes.convolutionMode, crossCorrelation);
      set.integers(A.convolutionSpatialAxes, [strides.length]);
      set.integers(A.convolutionPaddingBefore, before);
      set.integers(A.convolutionPaddingAfter, after);
      set.integers(
        A.convolutionDilations,
        strides.map(() => 1),
      );
      set.integers(A.convolutionStrides, strides);
    });
    const { operation, attributes } = convolutionKinds[kind];
    const [alpha, beta, geometry, kernelAt, xAt, yAt] = attributes;
    this.operation(operation, (set) => {
      set.descriptors(xAt, [x.descriptor]);
      set.descriptors(kernelAt, [kernel.descriptor]);
      set.descriptors(yAt, [y.descriptor]);
      set.descriptors(geometry, [settings]);
      set.float(alpha, 1);
      set.float(beta, 0);
    });
  }

  /**
   * Up to `most` ways to run the graph, the one that cuDNN thinks fastest first.
   * @throws CudnnError when there is none.
   */
  plans(most: number): CudnnPlan[] {
    const { cudnn } = this;
    const graph = this.describe('operationGraph', (set) => {
      set.descriptors(A.graphOperations, this.operations);
      set.handle(A.graphHandle, cudnn.handle);
    });
    const plans: CudnnPlan[] = [];
    let problem: unknown;
    for (const mode of [heuristicModes.best, heuristicModes.fallback]) {
      for (const configuration of this.configurations(graph, mode)) {
        if (plans.length >= most) return plans;
        try {
          plans.push(this.plan(configuration));
        } catch (error) {
          problem = error;
        }
      }
      if (plans.length > 0) return plans;
    }
    throw problem instanceof Error ? problem : new Error('cuDNN has no engine for the graph');
  }

  /** The plan that {@link CudnnPlan.text} told of, of an equal graph; undefined when cuDNN does not take it. */
  restored(text: Uint8Array): CudnnPlan | undefined {
    const { cudnn } = this;
    try {
      return this.planned(
        this.describe('executionPlan', (set) => {
          set.handle(A.planHandle, cudnn.handle);
          set.text(A.planText, text);
        }),
      );
    } catch (error) {
      if (error instanceof CudnnError) return undefined;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.owned.reverse()) this.cudnn.cudnnBackendDestroyDescriptor(descriptor);
    this.owned.length = 0;
  }

  private configurations(graph: bigint, mode: number): bigint[] {
    const { cudnn } = this;
    const read = (heuristic: bigint, count: number, target: NativeMemory | undefined): number => {
      const found = new NativeMemory(8);
      const status = cudnn.cudnnBackendGetAttribute(
        heuristic,
        A.heuristicResults,
        attributeTypes.descriptor,
        count,
        found.bytes,
        target?.bytes ?? null,
      );
      cudnn.check(status, 'read the engines that cuDNN proposes');
      return found.size();
    };
    let heuristic: bigint;
    try {
      heuristic = this.describe('heuristic', (set) => {
        set.descriptors(A.heuristicGraph, [graph]);
        set.enumeration(A.heuristicMode, attributeTypes.heuristicMode, mode);
      });
    } catch {
      return [];
    }
    const count = read(heuristic, 0, undefined);
    const handles = Array.from({ length: count }, () => this.create('engineConfiguration'));
    const found = count === 0 ? 0 : read(heuristic, count, NativeMemory.pointers(handles));
    return handles.slice(0, found);
  }

  private plan(configuration: bigint): CudnnPlan {
    return this.planned(
      this.describe('executionPlan', (set) => {
        set.descriptors(A.planConfiguration, [configuration]);
        set.handle(A.planHandle, this.cudnn.handle);
      }),
    );
  }

  private planned(plan: bigint): CudnnPlan {
    const { cudnn } = this;
    const [bytes, count] = [new NativeMemory(8), new NativeMemory(8)];
    const status = cudnn.cudnnBackendGetAttribute(
      plan,
      A.planWorkspace,
      attributeTypes.int64,
      1,
      count.bytes,
      bytes.bytes,
    );
    cudnn.check(status, 'read the workspace of a cuDNN plan');
    return new CudnnPlan(cudnn, plan, bytes.size(), this.numbers, this.owned);
  }

  private operation(kind: keyof typeof descriptors, fill: (set: AttributeWriter) => void): void {
    this.operations.push(this.describe(kind, fill));
  }

  private describe(kind: keyof typeof descriptors, fill: (set: AttributeWriter) => void): bigint {
    const descriptor = this.create(kind);
    const set = new AttributeWriter(this.cudnn, descriptor, kind);
    fill(set);
    this.texts.push(set.describe(this.owned));
    this.cudnn.check(this.cudnn.cudnnBackendFinalize(descriptor), `cuDNN ${kind}`);
    return descriptor;
  }

  private create(kind: keyof typeof descriptors): bigint {
    const descriptor = createDescriptor(this.cudnn, kind);
    this.owned.push(descriptor);
    return descriptor;
  }
}

/** One way to run a graph. It is valid as long as the graph is. */
export class CudnnPlan {
  /** Bytes of memory it needs while it runs. */
  readonly workspaceBytes: number;
  private readonly cudnn: Cudnn;
  private readonly plan: bigint;
  private readonly numbers: readonly CudnnTensor[];
  private readonly owned: bigint[];

  /** @param owned where the graph keeps what it destroys. */
  constructor(
    cudnn: Cudnn,
    plan: bigint,
    workspaceBytes: number,
    numbers: readonly CudnnTensor[],
    owned: bigint[],
  ) {
    this.cudnn = cudnn;
    this.plan = plan;
    this.workspaceBytes = workspaceBytes;
    this.numbers = numbers;
    this.owned = owned;
  }

  /** A launch with tensors at fixed addresses; numbers are filled in. */
  bind(tensors: readonly (readonly [CudnnTensor, bigint])[], workspace: bigint): Launch {
    const { cudnn } = this;
    const pack = createDescriptor(cudnn, 'variantPack');
    this.owned.push(pack);
    const set = new AttributeWriter(cudnn, pack, 'variantPack');
    const numbers = this.numbers.map((number) => [number, number.value?.address ?? 0n] as const);
    const all = [...tensors, ...numbers];
    set.pointers(A.packWorkspace, [workspace]);
    set.pointers(
      A.packPointers,
      all.map(([, address]) => address),
    );
    set.integers(
      A.packIds,
      all.map(([{ id }]) => id),
    );
    cudnn.check(cudnn.cudnnBackendFinalize(pack), 'cuDNN variantPack');
    return () => this.execute(pack);
  }

  /** The plan as text, with what cuDNN compiled for it; undefined when its engine has none. */
  text(): Uint8Array | undefined {
    const { cudnn, plan } = this;
    const count = new NativeMemory(8);
    const read = (most: number, target: Uint8Array | null) =>
      cudnn.cudnnBackendGetAttribute(plan, A.planText, attributeTypes.char, most, count.bytes, target);
    if (read(0, null) !== 0 || count.size() === 0) return undefined;
    const text = new NativeMemory(count.size());
    if (read(count.size(), text.bytes) !== 0) return undefined;
    return text.bytes.subarray(0, count.size());
  }

  // A method, so that launches keep the plan and with it the numbers, which cuDNN reads at every execution.
  private execute(pack: bigint): void {
    const { cudnn, plan } = this;
    cudnn.check(cudnn.cudnnBackendExecute(cudnn.handle, plan, pack), 'cudnnBackendExecute');
  }
}

class AttributeWriter {
  private readonly cudnn: Cudnn;
  private readonly descriptor: bigint;
  private readonly kind: string;
  private readonly written: (readonly [attribute: number, values: readonly (number | bigint | boolean)[]])[] =
    [];

  constructor(cudnn: Cudnn, descriptor: bigint, kind: string) {
    this.cudnn = cudnn;
    this.descriptor = descriptor;
    this.kind = kind;
  }

  /** What was written, descriptors as their places among those of the graph; handles, pointers and texts left out. */
  describe(descriptors: readonly bigint[]): string {
    const values = this.written.map(([attribute, list]) => {
      const parts = list.map((value) =>
        typeof value === 'bigint' ? `#${descriptors.indexOf(value)}` : value,
      );
      return ` ${attribute}=${parts}`;
    });
    return `${this.kind}${values.join('')}`;
  }

  integers(attribute: number, values: readonly number[]): void {
    this.written.push([attribute, values]);
    this.write(attribute, attributeTypes.int64, values.length, NativeMemory.integers(values));
  }

  descriptors(attribute: number, values: readonly bigint[]): void {
    this.written.push([attribute, values]);
    this.write(attribute, attributeTypes.descriptor, values.length, NativeMemory.pointers(values));
  }

  pointers(attribute: number, values: readonly bigint[]): void {
    this.write(attribute, attributeTypes.pointer, values.length, NativeMemory.pointers(values));
  }

  handle(attribute: number, value: bigint): void {
    this.write(attribute, attributeTypes.handle, 1, NativeMemory.pointers([value]));
  }

  text(attribute: number, value: Uint8Array): void {
    // With a closing zero that does not count.
    const memory = new NativeMemory(value.length + 1);
    memory.bytes.set(value);
    this.write(attribute, attributeTypes.char, value.length, memory);
  }

  enumeration(attribute: number, type: number, value: number): void {
    this.written.push([attribute, [value]]);
    this.write(attribute, type, 1, NativeMemory.int(value));
  }

  boolean(attribute: number, value: boolean): void {
    this.written.push([attribute, [value]]);
    this.write(attribute, attributeTypes.boolean, 1, NativeMemory.int(value ? 1 : 0));
  }

  float(attribute: number, value: number): void {
    this.written.push([attribute, [value]]);
    this.write(attribute, attributeTypes.float, 1, NativeMemory.float(value));
  }

  private write(attribute: number, type: number, count: number, value: NativeMemory): void {
    const status = this.cudnn.cudnnBackendSetAttribute(this.descriptor, attribute, type, count, value.bytes);
    this.cudnn.check(status, `attribute ${attribute} of a cuDNN ${this.kind}`);
  }
}

/** For each kind of convolution: alpha, beta, geometry, kernel, x (or its gradient), y (or its gradient). */
const convolutionKinds = {
  forward: { operation: 'convolutionForward', attributes: [700, 701, 702, 703, 704, 705] },
  inputGradient: { operation: 'convolutionInputGradient', attributes: [706, 707, 708, 709, 710, 711] },
  kernelGradient: { operation: 'convolutionKernelGradient', attributes: [712, 713, 714, 715, 716, 717] },
} as const;

function createDescriptor(cudnn: Cudnn, kind: keyof typeof descriptors): bigint {
  const out = new NativeMemory(8);
  cudnn.check(cudnn.cudnnBackendCreateDescriptor(descriptors[kind], out.bytes), `cuDNN ${kind}`);
  return out.pointer();
}

/** Strides of a dense row-major tensor. */
function dense(sizes: readonly number[]): number[] {
  return sizes.map((_, axis) => sizes.slice(axis + 1).reduce((product, size) => product * size, 1));
}
