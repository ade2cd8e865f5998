import type { OwnOperators } from '../executor.ts';
import type { LoweringTarget } from './emitter.ts';

/** A value as it travels to and from the session host: float32, int32 or bool (one byte each), row-major. */
export interface Transfer {
  readonly type: 'float32' | 'int32' | 'bool';
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

/** An ONNX model to make a session of. */
export interface SessionModel {
  readonly model: Uint8Array;
  /** Whether the session may keep memory for its next run; one that makes large values had better not. */
  readonly pool: boolean;
}

/** An output of a model that a stage wants. */
export interface Fetch extends Omit<Transfer, 'data'> {
  /** Its name in the model. */
  readonly name: string;
  /** Its shape in the model, where it may be another with as many elements. */
  readonly modelShape: readonly number[];
}

/** A run of one session within a program. Slots are places for values that live while the program runs. */
export interface HostStage {
  readonly session: string;
  /** Slot of each fed value, with the name that the model reads it under. */
  readonly feeds: readonly (readonly [name: string, slot: number])[];
  /** Slot of each fetched value. */
  readonly fetches: readonly (readonly [fetch: Fetch, slot: number])[];
  /** Slots that nothing reads after this stage. */
  readonly last: readonly number[];
  /**
   * Set when the model is elementwise over vectors of any length: its values have other shapes with as many elements,
   * or are scalars.
   */
  readonly flat?: FlatStage;
}

/** What is known of an elementwise stage. */
export interface FlatStage {
  /** Whether one operation does it all, so that nothing is gained by running it in stretches. */
  readonly whole: boolean;
  /** Fed values whose memory fetched ones may take over, as indices of both. */
  readonly inPlace: readonly (readonly [fetch: number, feed: number])[];
}

/** A compiled graph as the session host runs it. Slots 0 to inputs-1 are given. */
export interface HostProgram {
  readonly stages: readonly HostStage[];
  readonly outputs: readonly number[];
  /** Inputs that a run frees after their last use. */
  readonly donated: readonly number[];
}

/** How matrix products are computed: `bf16` rounds their operands to bfloat16, sums are float32 in both. */
export type OnnxPrecision = 'fp32' | 'bf16';

/** Settings of a session host, given once. */
export interface HostSettings extends Omit<LoweringTarget, 'ownOperators' | 'roundsProducts'> {
  /** Threads of one operation; 0 lets ONNX Runtime choose. */
  readonly threads: number;
  /** `bf16` needs {@link OwnOperators.bfloat16}. Default `fp32`. */
  readonly precision?: OnnxPrecision;
  /**
   * Folder of the library of our own operators, which must be there; false: do without. Default: the one shipped for this
   * platform, where it can be used.
   */
  readonly kernels?: string | false;
  /** Refuse models that the device cannot run whole, instead of running parts of them on the CPU. */
  readonly strict: boolean;
}

/** What the executor asks of the session host. Requests are served one after the other, in order. */
export type HostRequest =
  | { readonly kind: 'start'; readonly settings: HostSettings }
  | { readonly kind: 'session'; readonly session: string; readonly model: SessionModel }
  | { readonly kind: 'dropSession'; readonly session: string }
  | { readonly kind: 'upload'; readonly buffer: number; readonly value: Transfer }
  | { readonly kind: 'download'; readonly buffer: number }
  | { readonly kind: 'free'; readonly buffer: number }
  | { readonly kind: 'program'; readonly program: number; readonly plan: HostProgram }
  | { readonly kind: 'dropProgram'; readonly program: number }
  | {
      readonly kind: 'run';
      readonly program: number;
      readonly inputs: readonly number[];
      readonly outputs: readonly number[];
    };

/** The answer to the request of the same number. */
export type HostReply =
  | { readonly id: number; readonly value?: Transfer; readonly started?: Started }
  | { readonly id: number; readonly error: string };

/** What the host says of itself when it has started. */
export interface Started {
  /** What runs in place of the library, and why. */
  readonly fallback?: string;
  /** What became of our own operators; left out where nobody expects any. */
  readonly ownOperators?: OwnOperators;
}

/** A request with its number, as it is sent. */
export interface NumberedRequest {
  readonly id: number;
  readonly request: HostRequest;
}

/** What the worker thread in Node hears: requests, and at last that it is to free everything and end. */
export type NodeWorkerMessage = NumberedRequest | 'close';

/** What the worker thread in Node is started with. */
export interface NodeWorkerData {
  /** Call ONNX Runtime's C library, if it can be loaded. */
  readonly useLibrary: boolean;
  /** Not 0 once the executor was disposed: requests that are still waiting are refused. */
  readonly stop: Int32Array<SharedArrayBuffer>;
}

/** The line to a session host in another thread. */
export interface HostConnection {
  send(message: NumberedRequest): void;
  /** Called once, before the first `send`. `fail` reports that the host is gone. */
  listen(receive: (reply: HostReply) => void, fail: (error: Error) => void): void;
  close(): Promise<void>;
  /** Whether an idle connection keeps the process alive; it should only while requests are pending. */
  keepAlive(alive: boolean): void;
}
