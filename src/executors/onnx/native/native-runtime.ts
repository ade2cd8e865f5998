import koffi from 'koffi';
import { at, elementCount, sameShape } from '../../../tensor/shape.ts';
import type { HostSettings, ModelOutput, SessionModel, Transfer } from '../messages.ts';
import { copierModel, onnxTypes } from '../model.ts';
import type { NamedValues, Runtime } from '../runtime.ts';
import { loadOrt, type OrtNative } from './api.ts';
import { type Block, MemoryPool } from './memory-pool.ts';

/** A session of the library, with the names that it is called by. */
export interface NativeSession {
  readonly handle: bigint;
  readonly outputs: ReadonlyMap<string, ModelOutput>;
}

/** A tensor: an `OrtValue` over memory of the pool. */
export interface NativeValue extends Omit<Transfer, 'data'> {
  readonly handle: bigint;
  readonly block: Block;
}

const elementBytes: Readonly<Record<Transfer['type'], number>> = { float32: 4, int32: 4, bool: 1 };
const elementTypes: Readonly<Record<Transfer['type'], number>> = {
  float32: onnxTypes.float,
  int32: onnxTypes.int32,
  bool: onnxTypes.bool,
};

/** `ORT_LOGGING_LEVEL_FATAL`: errors come back as statuses. */
const fatal = 4;
/** `OrtArenaAllocator`, `OrtMemTypeDefault`. */
const [arenaAllocator, defaultMemory] = [1, 0];
/** `kSameAsRequested`: an arena that grows by what is asked for, instead of by powers of two. */
const sameAsRequested = 1n;

/**
 * ONNX Runtime through its C functions, on the CPU. Values lie in memory of ours: sessions write outputs in place, and
 * nothing is copied between them. One thread pool and one arena serve all sessions.
 */
export class NativeRuntime implements Runtime<NativeSession, NativeValue> {
  readonly handsOver = true;
  private readonly ort: OrtNative;
  private readonly pool = new MemoryPool();
  private readonly names = new Map<string, Uint8Array>();
  private readonly environment: bigint;
  private readonly memoryInfo: bigint;
  private threads = 0;
  private sharesThreads = false;

  /** @throws Error when there is no library for this platform. */
  constructor() {
    const ort = loadOrt();
    this.ort = ort;
    const threading = made((out) => ort.CreateThreadingOptions(out));
    ort.SetGlobalSpinControl(threading, 1);
    this.environment = made((out) => ort.CreateEnvWithGlobalThreadPools(fatal, 'zoetrope', threading, out));
    ort.ReleaseThreadingOptions(threading);
    this.memoryInfo = made((out) => ort.CreateCpuMemoryInfo(arenaAllocator, defaultMemory, out));
    this.registerArena();
  }

  start({ threads }: HostSettings): void {
    this.threads = threads;
    this.sharesThreads = threads === 0 && this.canShareThreads();
  }

  async createSession({ model, outputs, pool }: SessionModel): Promise<NativeSession> {
    const options = this.sessionOptions(pool);
    try {
      const handle = made((out) =>
        this.ort.CreateSessionFromArray(this.environment, model, model.byteLength, options, out),
      );
      return { handle, outputs: new Map(outputs.map((output) => [output.name, output])) };
    } finally {
      this.ort.ReleaseSessionOptions(options);
    }
  }

  async releaseSession({ handle }: NativeSession): Promise<void> {
    this.ort.ReleaseSession(handle);
  }

  upload(transfer: Transfer): NativeValue {
    const value = this.newValue(transfer);
    bytesOf(value).set(
      new Uint8Array(transfer.data.buffer, transfer.data.byteOffset, transfer.data.byteLength),
    );
    return value;
  }

  async download(value: NativeValue): Promise<Transfer> {
    const { type, shape } = value;
    const { buffer } = bytesOf(value).slice();
    switch (type) {
      case 'float32':
        return { type, shape, data: new Float32Array(buffer) };
      case 'int32':
        return { type, shape, data: new Int32Array(buffer) };
      case 'bool':
        return { type, shape, data: new Uint8Array(buffer) };
    }
  }

  async copy(value: NativeValue): Promise<NativeValue> {
    const copy = this.newValue(value);
    bytesOf(copy).set(bytesOf(value));
    return copy;
  }

  release({ handle, block }: NativeValue): void {
    this.ort.ReleaseValue(handle);
    this.pool.give(block);
  }

  async run(
    session: NativeSession,
    feeds: NamedValues<NativeValue>,
    fetches: readonly string[],
  ): Promise<readonly NativeValue[]> {
    const outputs = fetches.map((name) => {
      const output = session.outputs.get(name);
      if (output === undefined) throw new Error(`the session has no output ${name}`);
      return output;
    });
    const results = outputs.map(({ type, modelShape }) => this.newValue({ type, shape: modelShape }));
    try {
      this.ort.Run(
        session.handle,
        null,
        this.addresses(feeds.map(([name]) => name)),
        handles(feeds.map(([, value]) => value)),
        feeds.length,
        this.addresses(fetches),
        fetches.length,
        handles(results),
      );
    } catch (error) {
      for (const value of results) this.release(value);
      throw error;
    }
    return results.map((value, index) => this.reshaped(value, at(outputs, index).shape));
  }

  trim(): void {
    this.pool.trim();
  }

  close(): void {
    this.pool.trim();
    this.ort.ReleaseMemoryInfo(this.memoryInfo);
    this.ort.ReleaseEnv(this.environment);
  }

  private registerArena(): void {
    const { ort } = this;
    const keys = ['arena_extend_strategy'].map(cString);
    const addresses = BigUint64Array.from(keys, (key) => koffi.address(key));
    const values = BigUint64Array.of(sameAsRequested);
    const settings = made((out) => ort.CreateArenaCfgV2(addresses, values, keys.length, out));
    ort.CreateAndRegisterAllocator(this.environment, this.memoryInfo, settings);
    ort.ReleaseArenaCfg(settings);
  }

  /**
   * Whether sessions can use the environment's threads. A process has one environment: one that others made, such as
   * the Node package, has none. Only making a session tells.
   */
  private canShareThreads(): boolean {
    this.sharesThreads = true;
    const options = this.sessionOptions(false);
    const model = copierModel('float', 1);
    try {
      const { ort } = this;
      const probe = made((out) =>
        ort.CreateSessionFromArray(this.environment, model, model.byteLength, options, out),
      );
      ort.ReleaseSession(probe);
      return true;
    } catch {
      return false;
    } finally {
      this.ort.ReleaseSessionOptions(options);
    }
  }

  private sessionOptions(pool: boolean): bigint {
    const { ort } = this;
    const options = made((out) => ort.CreateSessionOptions(out));
    ort.SetSessionLogSeverityLevel(options, fatal);
    if (this.sharesThreads) ort.DisablePerSessionThreads(options);
    else ort.SetIntraOpNumThreads(options, this.threads);
    if (!pool) ort.DisableCpuMemArena(options);
    const entries = {
      ...(pool && { 'session.use_env_allocators': '1' }),
      'session.intra_op.allow_spinning': '1',
      'session.force_spinning_stop': '1',
      // It would merge a recomputed block with the first computation and so keep everything after all.
      'optimization.disable_specified_optimizers': 'CommonSubexpressionElimination',
    };
    for (const [key, value] of Object.entries(entries)) ort.AddSessionConfigEntry(options, key, value);
    return options;
  }

  private newValue(type: Omit<Transfer, 'data'>): NativeValue {
    return this.valueIn(this.pool.take(byteLength(type)), type);
  }

  private reshaped(value: NativeValue, shape: readonly number[]): NativeValue {
    if (sameShape(value.shape, shape)) return value;
    this.ort.ReleaseValue(value.handle);
    return this.valueIn(value.block, { type: value.type, shape });
  }

  private valueIn(block: Block, { type, shape }: Omit<Transfer, 'data'>): NativeValue {
    const sizes = BigInt64Array.from(shape.length === 0 ? [0] : shape, BigInt);
    const handle = made((out) =>
      this.ort.CreateTensorWithDataAsOrtValue(
        this.memoryInfo,
        block.address,
        byteLength({ type, shape }),
        sizes,
        shape.length,
        elementTypes[type],
        out,
      ),
    );
    return { type, shape, handle, block };
  }

  /** Addresses of names, which are kept for good: there are few, and C reads them during runs. */
  private addresses(names: readonly string[]): BigUint64Array {
    return BigUint64Array.from(names, (name) => {
      const known = this.names.get(name) ?? cString(name);
      this.names.set(name, known);
      return koffi.address(known);
    });
  }
}

/** The handle that a function writes. */
function made(create: (out: BigUint64Array) => void): bigint {
  const out = new BigUint64Array(1);
  create(out);
  return out[0] ?? 0n;
}

function handles(values: readonly NativeValue[]): BigUint64Array {
  return BigUint64Array.from(values, ({ handle }) => handle);
}

function byteLength({ type, shape }: Omit<Transfer, 'data'>): number {
  return elementBytes[type] * elementCount(shape);
}

function bytesOf(value: NativeValue): Uint8Array {
  return new Uint8Array(value.block.buffer, value.block.offset, byteLength(value));
}

function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}
