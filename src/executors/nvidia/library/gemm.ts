import { bytesPerElement, type DType } from '../../../tensor/dtype.ts';
import type { Precision } from '../../executor.ts';
import {
  type CublasLt,
  computeTypes,
  cudaTypes,
  descriptorAttributes,
  epilogues,
  heuristicResult,
  layoutAttributes,
  openCublasLt,
  preferenceAttributes,
} from '../bindings/cublaslt.ts';
import { NativeMemory } from '../bindings/native.ts';
import type { Device } from '../device.ts';
import { DiskCache } from '../disk-cache.ts';
import type { Launch } from '../kernel-cache.ts';

/** Element types that cuBLASLt multiplies; sums are in float32. */
export type GemmType = keyof typeof cudaTypes;

/**
 * A dtype as a {@link GemmType}.
 * @throws Error for one that cuBLASLt does not multiply.
 */
export function gemmType(dtype: DType): GemmType {
  if (dtype === 'f32' || dtype === 'f16' || dtype === 'bf16' || dtype === 'f8e4m3') return dtype;
  throw new Error(`cuBLASLt does not multiply ${dtype}`);
}

/** A batch of row-major products y [m, n] = a [m, k] b [k, n], each operand stored transposed if so marked. */
export interface Gemm {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** Of a and b, and of y: the same, or f32; of f8e4m3, which b must be stored transposed in, bf16 or f32. */
  readonly dtype: GemmType;
  readonly result: GemmType;
  readonly batch: number;
  /** Elements from one matrix of the batch to the next; 0 for one that all share. */
  readonly strideA: number;
  readonly strideB: number;
  /** Largest power of two, up to 16 bytes, that divides every operand's address. */
  readonly alignment: number;
  /** What is done to the sums before they are written; default: nothing. Biases have the type of y. */
  readonly epilogue?: GemmEpilogue;
}

/** A bias [n], a gelu of what that gives, and that written too. */
export type GemmEpilogue = Exclude<keyof typeof epilogues, 'none'>;

/** Addresses that a product with an epilogue has besides those of its operands. */
export interface EpilogueAddresses {
  readonly bias: bigint;
  /** Of the biased sums [m, n]; 0 where they are not written. */
  readonly sum: bigint;
}

/** Bytes that cuBLASLt's kernels may use between themselves: what NVIDIA advises for Hopper. */
const workspaceBytes = 32 << 20;

/** Algorithms asked for, and timed where the product is large enough for it to matter. */
const candidates = 6;
const smallestTimed = 2 ** 24;

/** cuBLASLt on one GPU. */
export class GemmLibrary {
  readonly path: string;
  readonly version: number;
  private readonly device: Device;
  private readonly lt: CublasLt;
  private readonly precision: Precision;
  private readonly workspace: bigint;
  private readonly plans = new Map<string, GemmPlan>();
  private readonly gains = new Map<string, boolean>();
  private readonly choices = new DiskCache('products', 'algorithm');
  private readonly comparisons = new DiskCache('products', 'gain');

  constructor(device: Device, precision: Precision) {
    this.device = device;
    this.precision = precision;
    this.lt = openCublasLt();
    this.path = this.lt.path;
    this.version = this.lt.version;
    this.workspace = device.memory.allocate(workspaceBytes);
  }

  /** Chooses the algorithm for a product, once per shape. */
  plan(gemm: Gemm): GemmPlan {
    const key = JSON.stringify(gemm);
    const known = this.plans.get(key);
    if (known !== undefined) return known;
    const plan = new GemmPlan(this.lt, gemm, this.precision, this.device.stream, this.workspace);
    const size = gemm.m * gemm.n * gemm.k * gemm.batch;
    if (this.precision !== 'fp32' && size >= smallestTimed) this.choose(plan, gemm, key);
    this.plans.set(key, plan);
    return plan;
  }

  /**
   * Whether cuBLASLt has an algorithm for a product with its epilogue, and one that is no slower than the bare product and
   * a kernel after it. A kernel takes as long as copying the result, which is what is timed in its place, once for a GPU.
   * @param share of the result that the kernel would write. Default: all.
   */
  isGain(gemm: Gemm, share = 1): boolean {
    const key = JSON.stringify({ ...gemm, share });
    const known = this.gains.get(key) ?? this.comparesWell(gemm, share, key);
    this.gains.set(key, known);
    return known;
  }

  /** Frees the handle; the workspace is the device's. */
  dispose(): void {
    this.lt.cublasLtDestroy(this.lt.handle);
  }

  private comparesWell({ epilogue, ...bare }: Gemm, share: number, problem: string): boolean {
    if (epilogue === undefined) return false;
    const plan = planOrNone(() => this.plan({ ...bare, epilogue }));
    if (plan?.milliseconds === undefined) return plan !== undefined;
    const key = this.keyOf(problem);
    const [known, ...others] = this.comparisons.read(key) ?? [];
    if ((known === 0 || known === 1) && others.length === 0) return known === 1;
    const without = this.plan(bare).milliseconds ?? Number.POSITIVE_INFINITY;
    const isGain = plan.milliseconds <= without + share * this.copyTime(bare);
    this.comparisons.write(key, Uint8Array.of(isGain ? 1 : 0));
    return isGain;
  }

  /** Of what was measured: it is true for this GPU and version. */
  private keyOf(problem: string): string {
    return [this.device.name, this.version, this.precision, problem].join('\n');
  }

  private copyTime({ m, n, batch, result }: Gemm): number {
    const { memory } = this.device;
    const bytes = batch * m * n * bytesPerElement(result);
    const [from, to] = [memory.allocate(bytes), memory.allocate(bytes)];
    try {
      const copy = () => this.device.copy(to, from, bytes);
      copy();
      return this.device.time(copy, 3);
    } finally {
      for (const block of [from, to]) memory.release(block);
    }
  }

  /** Takes the algorithm that was the fastest before with this GPU and version, if it is among those that there are. */
  private choose(plan: GemmPlan, gemm: Gemm, problem: string): void {
    const key = this.keyOf(problem);
    const known = this.choices.read(key);
    if (known !== undefined && plan.adopt(known)) return;
    this.tune(plan, gemm);
    this.choices.write(key, plan.choice());
  }

  /** Times the algorithms on memory of their own and keeps the fastest. */
  private tune(plan: GemmPlan, { m, n, k, batch, strideA, strideB, epilogue }: Gemm): void {
    const { memory } = this.device;
    const sizes = [
      strideA === 0 ? m * k : batch * strideA,
      strideB === 0 ? k * n : batch * strideB,
      batch * m * n,
      epilogue === undefined ? 0 : n,
      epilogue === 'biasGeluKeepingSum' ? m * n : 0,
    ];
    const blocks = sizes.map((size) => memory.allocate(4 * size));
    try {
      sizes.forEach((size, index) => {
        this.device.clear(blocks[index] ?? 0n, 4 * size);
      });
      const [a = 0n, b = 0n, y = 0n, bias = 0n, sum = 0n] = blocks;
      plan.chooseFastest((index) => {
        const launch = plan.bindAlgorithm(index, a, b, y, { bias, sum });
        launch();
        return this.device.time(launch, 3);
      });
    } finally {
      for (const block of blocks) memory.release(block);
    }
  }
}

/** A product with its descriptors, and the algorithms that can do it. */
export class GemmPlan {
  private readonly lt: CublasLt;
  private readonly stream: bigint;
  private readonly workspace: bigint;
  private readonly descriptor: bigint;
  private readonly layouts: readonly [a: bigint, b: bigint, y: bigint];
  private readonly epilogue: GemmEpilogue | undefined;
  private readonly results = new NativeMemory(heuristicResult.bytes * candidates);
  private readonly count: number;
  private chosen = 0;
  /** What the chosen algorithm takes; undefined where none was timed. */
  milliseconds: number | undefined;

  constructor(lt: CublasLt, gemm: Gemm, precision: Precision, stream: bigint, workspace: bigint) {
    this.lt = lt;
    this.stream = stream;
    this.workspace = workspace;
    const { m, n, k, transposeA, transposeB, batch, strideA, strideB, dtype, result, epilogue } = gemm;
    this.epilogue = epilogue;
    const compute = dtype === 'f32' && precision !== 'fp32' ? computeTypes.tf32 : computeTypes.f32;
    const out = new NativeMemory(8);
    lt.check(lt.cublasLtMatmulDescCreate(out.bytes, compute, cudaTypes.f32), 'cublasLtMatmulDescCreate');
    this.descriptor = out.pointer();
    // cuBLASLt is column-major: a row-major matrix is the transpose of what it sees, and y^T = b^T a^T.
    this.set(descriptorAttributes.transposeA, NativeMemory.int(transposeB ? 1 : 0), 4);
    this.set(descriptorAttributes.transposeB, NativeMemory.int(transposeA ? 1 : 0), 4);
    this.set(descriptorAttributes.epilogue, NativeMemory.int(epilogues[epilogue ?? 'none']), 4);
    // Sums of 14 bits within the tensor cores: their error is small beside that of the operands.
    if (dtype === 'f8e4m3') this.set(descriptorAttributes.fastAccumulation, NativeMemory.int(1), 1);
    if (epilogue === 'biasGeluKeepingSum')
      this.set(descriptorAttributes.auxiliaryLeading, NativeMemory.integers([n]), 8);
    // Algorithms are asked for with pointers that are aligned as the later ones are.
    for (const launch of this.pointTo({ bias: workspace, sum: workspace })) launch();
    const layout = (rows: number, columns: number, stride: number, type = dtype) =>
      this.layout(cudaTypes[type], rows, columns, batch, stride);
    this.layouts = [
      transposeA ? layout(m, k, strideA) : layout(k, m, strideA),
      transposeB ? layout(k, n, strideB) : layout(n, k, strideB),
      layout(n, m, m * n, result),
    ];
    this.count = this.findAlgorithms(gemm);
  }

  /** Keeps the algorithm that `time` gives the least for; one that fails is passed over. */
  chooseFastest(time: (index: number) => number): void {
    let best = Number.POSITIVE_INFINITY;
    for (let index = 0; index < this.count; index++) {
      const taken = timeOrInfinity(() => time(index));
      if (taken < best) [best, this.chosen] = [taken, index];
    }
    if (best === Number.POSITIVE_INFINITY) throw new Error('no algorithm of cuBLASLt runs');
    this.milliseconds = best;
  }

  /** The algorithm that was chosen and its time, as bytes for {@link adopt}. */
  choice(): Uint8Array {
    const time = new Float64Array([this.milliseconds ?? Number.NaN]);
    return Buffer.concat([this.algorithm(this.chosen), new Uint8Array(time.buffer)]);
  }

  /** Chooses the algorithm that was chosen before. @returns whether it is among those that there are. */
  adopt(choice: Uint8Array): boolean {
    const { algorithmBytes } = heuristicResult;
    const known = Buffer.from(choice);
    if (known.length !== algorithmBytes + 8) return false;
    const all = Array.from({ length: this.count }, (_, index) => this.algorithm(index));
    const index = all.findIndex((one) => known.subarray(0, algorithmBytes).equals(one));
    if (index >= 0) [this.chosen, this.milliseconds] = [index, known.readDoubleLE(algorithmBytes)];
    return index >= 0;
  }

  /** A launch on fixed addresses. */
  bind(a: bigint, b: bigint, y: bigint, epilogue?: EpilogueAddresses): Launch {
    return this.bindAlgorithm(this.chosen, a, b, y, epilogue);
  }

  /** {@link bind} with one of the algorithms. */
  bindAlgorithm(index: number, a: bigint, b: bigint, y: bigint, epilogue?: EpilogueAddresses): Launch {
    const { lt, descriptor, layouts, workspace, stream } = this;
    const pointing = epilogue === undefined ? [] : this.pointTo(epilogue);
    const [layoutA, layoutB, layoutY] = layouts;
    const algorithm = this.algorithm(index);
    return () => {
      for (const point of pointing) point();
      const status = lt.cublasLtMatmul(
        lt.handle,
        descriptor,
        one.bytes,
        b,
        layoutB,
        a,
        layoutA,
        zero.bytes,
        y,
        layoutY,
        y,
        layoutY,
        algorithm,
        workspace,
        workspaceBytes,
        stream,
      );
      lt.check(status, 'cublasLtMatmul');
    };
  }

  private algorithm(index: number): Uint8Array {
    const start = index * heuristicResult.bytes;
    return this.results.bytes.subarray(start, start + heuristicResult.algorithmBytes);
  }

  private set(attribute: number, value: NativeMemory, bytes: number): void {
    const { lt } = this;
    const status = lt.cublasLtMatmulDescSetAttribute(this.descriptor, attribute, value.bytes, bytes);
    lt.check(status, 'cublasLtMatmulDescSetAttribute');
  }

  /** Writes the epilogue's addresses, if it has one, into the descriptor, which products of one shape share. */
  private pointTo({ bias, sum }: EpilogueAddresses): readonly Launch[] {
    const point = (attribute: number, address: bigint): Launch => {
      const value = NativeMemory.pointers([address]);
      return () => this.set(attribute, value, 8);
    };
    return [
      ...(this.epilogue === undefined ? [] : [point(descriptorAttributes.biasPointer, bias)]),
      ...(this.epilogue === 'biasGeluKeepingSum' ? [point(descriptorAttributes.auxiliaryPointer, sum)] : []),
    ];
  }

  private layout(type: number, rows: number, columns: number, batch: number, stride: number): bigint {
    const { lt } = this;
    const out = new NativeMemory(8);
    const status = lt.cublasLtMatrixLayoutCreate(out.bytes, type, rows, columns, rows);
    lt.check(status, 'cublasLtMatrixLayoutCreate');
    const set = (attribute: number, value: NativeMemory, bytes: number) =>
      lt.check(
        lt.cublasLtMatrixLayoutSetAttribute(out.pointer(), attribute, value.bytes, bytes),
        'cublasLtMatrixLayoutSetAttribute',
      );
    if (batch > 1) {
      set(layoutAttributes.batchCount, NativeMemory.int(batch), 4);
      set(layoutAttributes.batchStride, NativeMemory.integers([stride]), 8);
    }
    return out.pointer();
  }

  private findAlgorithms({ alignment, ...gemm }: Gemm): number {
    const { lt } = this;
    const [layoutA, layoutB, layoutY] = this.layouts;
    const out = new NativeMemory(8);
    lt.check(lt.cublasLtMatmulPreferenceCreate(out.bytes), 'cublasLtMatmulPreferenceCreate');
    const preference = out.pointer();
    const set = (attribute: number, value: NativeMemory, bytes: number) =>
      lt.check(
        lt.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value.bytes, bytes),
        'cublasLtMatmulPreferenceSetAttribute',
      );
    set(preferenceAttributes.maxWorkspaceBytes, NativeMemory.integers([workspaceBytes]), 8);
    const { minAlignmentA, minAlignmentB, minAlignmentC, minAlignmentD } = preferenceAttributes;
    for (const attribute of [minAlignmentA, minAlignmentB, minAlignmentC, minAlignmentD])
      set(attribute, NativeMemory.int(alignment), 4);
    const status = lt.cublasLtMatmulAlgoGetHeuristic(
      lt.handle,
      this.descriptor,
      layoutB,
      layoutA,
      layoutY,
      layoutY,
      preference,
      candidates,
      this.results.bytes,
      out.bytes,
    );
    lt.cublasLtMatmulPreferenceDestroy(preference);
    lt.check(status, `cublasLtMatmulAlgoGetHeuristic of ${JSON.stringify(gemm)}`);
    const found = out.int();
    if (found === 0) throw new Error(`cuBLASLt has no algorithm for ${JSON.stringify(gemm)}`);
    return found;
  }
}

const one = NativeMemory.float(1);
const zero = NativeMemory.float(0);

function planOrNone(plan: () => GemmPlan): GemmPlan | undefined {
  try {
    return plan();
  } catch {
    return undefined;
  }
}

function timeOrInfinity(time: () => number): number {
  try {
    return time();
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
