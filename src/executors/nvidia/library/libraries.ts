import { formatType } from '../../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Precision } from '../../executor.ts';
import { type Cudnn, openCudnn } from '../bindings/cudnn.ts';
import type { Device } from '../device.ts';
import type { LibraryStage } from '../kernel.ts';
import type { KernelCache } from '../kernel-cache.ts';
import type { Storage } from '../storage.ts';
import type { Tail } from '../tails.ts';
import type { AttentionContext } from './attention.ts';
import { fastestSplits } from './attention-splits.ts';
import { type CudnnConvolution, lowerConvolution } from './convolution.ts';
import { type Fp8AttentionContext, lowerFp8Attention, planFp8Attention } from './fp8-attention.ts';
import { isForFp8 } from './fp8-products.ts';
import { GemmLibrary } from './gemm.ts';
import { KeptPlans } from './kept-plans.ts';
import type { LibraryCall } from './library-call.ts';
import { isCudnnAttention, lowerAttention, lowerAttentionGradient } from './lower-attention.ts';
import { gemmOfTail, lowerMatmul, planMatmul } from './matmul.ts';

/** cuBLASLt and cuDNN on one GPU, with what was planned with them. */
export class Libraries {
  readonly precision: Precision;
  private readonly device: Device;
  private readonly kernels: KernelCache;
  private readonly gemm: GemmLibrary;
  private readonly cudnn: Cudnn | undefined;
  private readonly attention: AttentionContext | undefined;
  private readonly convolutions = new Map<string, CudnnConvolution | undefined>();
  private readonly fp8: Fp8AttentionContext | undefined;
  /** Products that `fp8` asks of f8e4m3 and that are computed in bf16, and why. */
  private readonly refused = new Set<string>();

  /** cuDNN is opened only for precisions that use it. */
  constructor(device: Device, kernels: KernelCache, precision: Precision) {
    this.device = device;
    this.kernels = kernels;
    this.precision = precision;
    this.gemm = new GemmLibrary(device, precision);
    this.cudnn = precision === 'fp32' ? undefined : openCudnn(device.stream);
    const cudnn = this.cudnn && {
      cudnn: this.cudnn,
      kept: new KeptPlans(device.name, device.driverVersion, this.cudnn.version),
    };
    this.fp8 = cudnn && {
      device,
      kernels,
      ...cudnn,
      quantised: new Map(),
      lateKeys: new Map(),
    };
    this.attention = cudnn && {
      device,
      kernels,
      ...cudnn,
      forwards: new Map(),
      backwards: new Map(),
      splits: fastestSplits(device.multiprocessors),
    };
  }

  /** Whether a node is computed here; kernels compute all others. */
  takes(node: Node): boolean {
    switch (node.op) {
      case 'matmul':
      case 'convolution':
      case 'convolutionInputGradient':
      case 'convolutionKernelGradient':
        return true;
      default:
        return this.attention !== undefined && isCudnnAttention(node);
    }
  }

  /**
   * Whether a product's tail is computed with it. In float32 that is its bias alone: kernels compute gelu to the last bits,
   * and nobody promises that for cuBLASLt's.
   */
  takesTail(tail: Tail, storage: Storage): boolean {
    if (tail.gelu !== undefined && this.precision === 'fp32') return false;
    const gemm = gemmOfTail(tail, storage);
    return gemm !== undefined && this.gemm.isGain(gemm, tail.share);
  }

  /**
   * Whether a product multiplies f8e4m3 in the precision `fp8`. What a library has nothing for is computed in bf16, which
   * {@link fallback} tells.
   * @param isRead whether anything reads a tensor.
   */
  quantises(node: Node, isRead: (tensor: Tensor) => boolean): boolean {
    if (this.precision !== 'fp8' || !isForFp8(node, isRead)) return false;
    try {
      this.planFp8(node);
      return true;
    } catch (error) {
      const types = operandsOf(node).map(formatType).join(' ');
      const reason = error instanceof Error ? error.message : String(error);
      this.refused.add(`computes ${node.op} of ${types} in bf16, not in fp8: ${reason}`);
      return false;
    }
  }

  /** What is computed otherwise than the precision says, and why; undefined when there is nothing of the kind. */
  fallback(): string | undefined {
    return this.refused.size === 0 ? undefined : [...this.refused].join('; ');
  }

  /** How a node that is {@link takes}n is computed, its tensors being stored so. */
  lower({ node, tail, cut }: LibraryStage, storage: Storage): LibraryCall {
    const { device, kernels, gemm, cudnn, attention, fp8 } = this;
    switch (node.op) {
      case 'matmul':
        return lowerMatmul(device, gemm, node, storage, tail);
      case 'convolution':
      case 'convolutionInputGradient':
      case 'convolutionKernelGradient':
        return lowerConvolution({ device, kernels, gemm, cudnn, plans: this.convolutions }, node, storage);
      case 'attention':
        if (fp8 !== undefined && storage(node.operands[0]) === 'f8e4m3') return lowerFp8Attention(fp8, node);
        if (attention !== undefined) return lowerAttention(attention, node, storage, cut);
        break;
      case 'attentionGradient':
        if (attention !== undefined) return lowerAttentionGradient(attention, node, storage, cut);
        break;
    }
    throw new Error(`no library computes ${node.op}`);
  }

  /** @throws Error when no library multiplies f8e4m3 for a node. */
  private planFp8(node: Node): void {
    if (node.op === 'matmul')
      this.gemm.plan(planMatmul(node, (tensor) => (tensor.node === node ? 'bf16' : 'f8e4m3')).gemm);
    else if (node.op === 'attention' && this.fp8 !== undefined) planFp8Attention(this.fp8, node);
  }

  /** Frees handles and plans. */
  dispose(): void {
    for (const planned of this.fp8?.quantised.values() ?? []) planned.graph[Symbol.dispose]();
    for (const planned of this.convolutions.values()) planned?.graph[Symbol.dispose]();
    for (const planned of this.attention?.forwards.values() ?? []) planned.graph[Symbol.dispose]();
    for (const planned of this.attention?.backwards.values() ?? []) planned.graph[Symbol.dispose]();
    if (this.cudnn !== undefined) this.cudnn.cudnnDestroy(this.cudnn.handle);
    this.gemm.dispose();
  }
}
