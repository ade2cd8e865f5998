import { type Graph, type Node, operandsOf, resultsOf, type Tensor } from '../../tensor/tensor.ts';
import { type Cut, valuesOperand } from './cuts.ts';
import type { Storage } from './storage.ts';
import { resultsOfTail, type Tail } from './tails.ts';

/**
 * One CUDA kernel with all shapes baked in. Its parameters are pointers: those of the inputs, then of the outputs.
 *
 * **Layout.** Every tensor is dense, row-major, in the dtype that it is stored in: f32 `float`, f16 and bf16 two bytes, i32 `int`, bool
 * one byte, 0 or 1, f8e4m3 one byte. Pointers are aligned to 256 bytes. A tensor without elements has an address that must not be read.
 * **Headers.** None: NVRTC compiles without include paths, so 16-bit floats are converted with inline PTX.
 * **Aliasing.** An output never overlaps an input except for the pairs in `inPlace`; those two parameters must then not
 * be declared `__restrict__`.
 */
export interface Kernel {
  /** Name of the function. Two kernels of one name have one source, so it contains a hash of what differs. */
  readonly name: string;
  /** The `extern "C" __global__` function alone. Helpers come from `prelude` (plain/prelude.ts), which is compiled before it. */
  readonly source: string;
  readonly grid: readonly [x: number, y: number, z: number];
  readonly block: readonly [x: number, y: number, z: number];
  /** Dynamic shared memory in bytes; beyond 48 KiB the runtime asks the driver for it. */
  readonly sharedBytes: number;
  /**
   * Pairs that may share memory: each element of the input is read by the thread that writes that element of the
   * output, before it writes it. With it a training step updates its donated weights where they are.
   */
  readonly inPlace?: readonly (readonly [input: number, output: number])[];
}

/** One thing that a compiled graph does, in order. */
export type Stage =
  /** Launches a kernel. An output that an earlier kernel made too is made in parts, or one after the other. */
  | {
      readonly kind: 'kernel';
      readonly kernel: Kernel;
      readonly inputs: readonly Tensor[];
      readonly outputs: readonly Tensor[];
    }
  /**
   * Leaves a node to cuBLASLt or cuDNN: all its operands are needed in memory; all its results are made. With a tail, what the
   * tail makes is made in their place; with a cut, attention reads that for its values.
   */
  | LibraryStage
  /** `output` is `input` in memory under another shape: a reshape. Free. */
  | { readonly kind: 'view'; readonly input: Tensor; readonly output: Tensor }
  /** A constant that a later stage reads from memory; constants that kernels contain as numbers have no stage. */
  | { readonly kind: 'constant'; readonly node: Node; readonly output: Tensor };

/** A stage that libraries compute. */
export interface LibraryStage {
  readonly kind: 'library';
  readonly node: Node;
  readonly tail?: Tail;
  readonly cut?: Cut;
}

/** What a library reads from memory. */
export function operandsOfCall({ node, tail, cut }: LibraryStage): readonly Tensor[] {
  const operands = cut === undefined ? operandsOf(node) : operandsOf(node).with(valuesOperand, cut.whole);
  return tail === undefined ? operands : [...operands, tail.bias];
}

/** What a library makes in memory. */
export function resultsOfCall({ node, tail }: LibraryStage): readonly Tensor[] {
  return tail === undefined ? resultsOf(node) : resultsOfTail(tail);
}

/** Whether a library computes a product together with its tail, the tensors being stored so. */
export type TakesTail = (tail: Tail, storage: Storage) => boolean;

/** What the partition asks the runtime. */
export interface PartitionPolicy {
  /** Whether a library computes this node; a kernel must do all others. */
  readonly takes: (node: Node) => boolean;
  /** Default: no tails. */
  readonly takesTail?: TakesTail;
  /** How tensors lie in memory. Default: in their own dtype. */
  readonly storage?: Storage;
  /** Whether an input stays the same from run to run: what is made of it is not made together with other things. Default: no. */
  readonly isFixed?: (input: Node) => boolean;
}

/**
 * Cuts a graph without calls into stages, operands first. Every graph output has memory afterwards: it is an input of
 * the graph, or an output of a kernel, library, view or constant stage.
 */
export type Partition = (graph: Graph, policy: PartitionPolicy) => readonly Stage[];
