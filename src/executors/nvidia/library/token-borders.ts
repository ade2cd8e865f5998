import type { DType } from '../../../tensor/dtype.ts';
import type { Device } from '../device.ts';
import type { Kernel } from '../kernel.ts';
import type { KernelCache, Launch } from '../kernel-cache.ts';
import { fromBf16Kernel, type PaddedRows, toBf16Kernel } from './conversion-kernels.ts';
import { type AttentionSizes, tokenElements } from './token-layout.ts';

/** Tensors of tokens that attention and its gradient read and make. */
export type TokenName = 'q' | 'k' | 'v' | 'y' | 'dy' | 'dq' | 'dk' | 'dv';

/** What borders run on. */
export interface BorderContext {
  readonly device: Device;
  readonly kernels: KernelCache;
}

/**
 * Ways for tensors of tokens to cuDNN and back. It is given bf16, packed tokens with room for whole tiles: what is stored
 * so is read and written where it is, all else in scratch, converted or copied.
 */
export class TokenBorders<Name extends TokenName> {
  /** Bytes of scratch for each tensor. */
  readonly scratch: Readonly<Record<Name, number>>;
  /** Conversions, to be prepared. */
  readonly conversions: readonly Kernel[];
  private readonly context: BorderContext;
  private readonly sizes: AttentionSizes;
  private readonly stored: Readonly<Record<Name, DType>>;

  /** @param stored dtype of each tensor in memory: f32 or bf16. */
  constructor(context: BorderContext, sizes: AttentionSizes, stored: Readonly<Record<Name, DType>>) {
    this.context = context;
    this.sizes = sizes;
    this.stored = stored;
    const names = Object.keys(stored) as Name[];
    this.scratch = Object.fromEntries(
      names.map((name) => [name, this.isDirect(name) ? 0 : 2 * tokenElements(sizes, this.tokens(name))]),
    ) as Record<Name, number>;
    this.conversions = names.flatMap((name) =>
      stored[name] === 'bf16' ? [] : [toBf16Kernel(this.rows(name)), fromBf16Kernel(this.rows(name))],
    );
  }

  /** Where cuDNN finds each tensor, from where it is and the scratch. */
  places(tensors: Readonly<Record<Name, bigint>>, scratch: Readonly<Record<Name, bigint>>) {
    const names = Object.keys(tensors) as Name[];
    return Object.fromEntries(
      names.map((name) => [name, this.isDirect(name) ? tensors[name] : scratch[name]]),
    ) as Record<Name, bigint>;
  }

  /** Brings a tensor to cuDNN. */
  into(name: Name, tensor: bigint, scratch: bigint): Launch[] {
    return this.way(name, toBf16Kernel, tensor, scratch);
  }

  /** Brings a tensor back. */
  back(name: Name, tensor: bigint, scratch: bigint): Launch[] {
    return this.way(name, fromBf16Kernel, scratch, tensor);
  }

  private way(name: Name, conversion: (rows: PaddedRows) => Kernel, from: bigint, to: bigint): Launch[] {
    if (this.isDirect(name)) return [];
    const { device, kernels } = this.context;
    const rows = this.rows(name);
    if (this.stored[name] !== 'bf16') return [kernels.bind(conversion(rows), [from, to])];
    return [() => device.copy(to, from, 2 * rows.rows * rows.channels)];
  }

  private isDirect(name: Name): boolean {
    const { rows, channels } = this.rows(name);
    return this.stored[name] === 'bf16' && tokenElements(this.sizes, this.tokens(name)) === rows * channels;
  }

  private rows(name: Name): PaddedRows {
    const { rows, heads, headSize } = this.sizes;
    const [count, channels] = [rows * this.tokens(name), heads * headSize];
    return { rows: count, channels, paddedRows: count, paddedChannels: channels };
  }

  private tokens(name: Name): number {
    return ['k', 'v', 'dk', 'dv'].includes(name) ? this.sizes.keys : this.sizes.queries;
  }
}
