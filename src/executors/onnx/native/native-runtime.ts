import koffi from 'koffi';
import { at, elementCount, sameShape } from '../../../tensor/shape.ts';
import type { OwnOperators } from '../../executor.ts';
import type { HostSettings, SessionModel, Transfer } from '../messages.ts';
import { copierModel, onnxTypes } from '../model.ts';
import type { Runtime, SessionRun } from '../runtime.ts';
import { loadOrt, type OrtNative } from './api.ts';
import { type Block, MemoryPool } from './memory-pool.ts';
import { loadOperators } from './operators.ts';
import { returnLargeAllocations } from './system-memory.ts';

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
/** Elements of a stretch of an elementwise run: a dozen values of this length fit the cache of a core. */
const stretch = 2 ** 16;
/** What the smallest run takes and gives. */
const oneNumber = { type: 'float32', shape: [1] } as const;
/** `kSameAsRequested`: an arena that grows by what is asked for, instead of by powers of two. */
const sameAsRequested = 1n;

/**
 * ONNX Runtime through its C functions, on the CPU. Values lie in memory of ours: sessions write outputs in place, and
 * nothing is copied between them. One thread pool and one arena serve all sessions.
 */
export class NativeRuntime implements Runtime<bigint, NativeValue> {
  readonly handsOver = true;
  private readonly ort: OrtNative;
  private readonly pool = new MemoryPool();
  private readonly names = new Map<string, Uint8Array>();
  private readonly environment: bigint;
  private readonly memoryInfo: bigint;
  /** The domain of our own operators, where they can be loaded. */
  private operators: bigint | undefined;
  private trimOperators: (() => void) | undefined;
  private threads = 0;
  private sharesThreads = false;

  /** @throws Error when there is no library for this platform. */
  constructor() {
    const ort = loadOrt();
    returnLargeAllocations();
    this.ort = ort;
    const threading = made((out) => ort.CreateThreadingOptions(out));
    // Threads that wait for work would spin on cores that others could use.
    ort.SetGlobalSpinControl(threading, 0);
    this.environment = made((out) => ort.CreateEnvWithGlobalThreadPools(fatal, 'zoetrope', threading, out));
    ort.ReleaseThreadingOptions(threading);
    this.memoryInfo = made((out) => ort.CreateCpuMemoryInfo(arenaAllocator, defaultMemory, out));
    this.registerArena();
  }

  start({ threads, kernels }: HostSettings): OwnOperators {
    this.threads = threads;
    const operators = kernels === false ? { problem: 'not wanted' } : this.addOperators(kernels);
    this.sharesThreads = threads === 0 && this.canShareThreads();
    return operators;
  }

  async createSession({ model }: SessionModel): Promise<bigint> {
    return this.makeSession(model);
  }

  async releaseSession(session: bigint): Promise<void> {
    this.ort.ReleaseSession(session);
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

  async run(run: SessionRun<bigint, NativeValue>): Promise<readonly NativeValue[]> {
    const taken = takeOver(run);
    const results = run.fetches.map(
      (fetch, index) => taken[index] ?? this.newValue({ type: fetch.type, shape: fetch.modelShape }),
    );
    try {
      if (run.flat === undefined)
        this.call(run, handles(run.feeds.map(([, value]) => value)), handles(results));
      else this.callOnStretches(run, results);
    } catch (error) {
      for (const [index, value] of results.entries()) if (taken[index] === undefined) this.release(value);
      throw error;
    }
    return results.map((value, index) => this.reshaped(value, at(run.fetches, index).shape));
  }

  trim(): void {
    this.pool.trim();
    this.trimOperators?.();
    this.shrinkArena();
  }

  close(): void {
    this.pool.trim();
    this.trimOperators?.();
    if (this.operators !== undefined) this.ort.ReleaseCustomOpDomain(this.operators);
    this.ort.ReleaseMemoryInfo(this.memoryInfo);
    this.ort.ReleaseEnv(this.environment);
  }

  /** Runs a session on values given by their handles. */
  private call(
    { session, feeds, fetches }: SessionRun<bigint, NativeValue>,
    inputs: BigUint64Array,
    outputs: BigUint64Array,
  ): void {
    this.ort.Run(
      session,
      null,
      this.addresses(feeds.map(([name]) => name)),
      inputs,
      feeds.length,
      this.addresses(fetches.map(({ name }) => name)),
      fetches.length,
      outputs,
    );
  }

  /** Runs an elementwise session stretch by stretch, so that what it makes in between stays in the cache. */
  private callOnStretches(run: SessionRun<bigint, NativeValue>, results: readonly NativeValue[]): void {
    const size = elementCount(at(results, 0).shape);
    const inputs = run.feeds.map(([, value]) => value);
    const step = run.flat?.whole === true ? size : stretch;
    for (let start = 0; start < size; start += step) {
      const end = Math.min(size, start + step);
      const parts = [...inputs, ...results].map((value) =>
        value.shape.length === 0 ? undefined : this.part(value, start, end),
      );
      const used = BigUint64Array.from(
        [...inputs, ...results],
        ({ handle }, index) => parts[index]?.handle ?? handle,
      );
      try {
        this.call(run, used.subarray(0, inputs.length), used.subarray(inputs.length));
      } finally {
        for (const part of parts) if (part !== undefined) this.ort.ReleaseValue(part.handle);
      }
    }
  }

  /** Elements of a value, as a vector over the same memory. */
  private part({ type, block }: NativeValue, start: number, end: number): NativeValue {
    const bytes = elementBytes[type] * start;
    const moved = { ...block, offset: block.offset + bytes, address: block.address + BigInt(bytes) };
    return this.valueIn(moved, { type, shape: [end - start] });
  }

  private addOperators(folder?: string): OwnOperators {
    try {
      const { operators, level, bfloat16, trim } = loadOperators(folder);
      const domain = made((out) => this.ort.CreateCustomOpDomain('zoetrope', out));
      for (const operator of operators) this.ort.AddOperator(domain, operator);
      this.operators = domain;
      this.trimOperators = trim;
      return { level, bfloat16 };
    } catch (error) {
      const [problem = ''] = String(error instanceof Error ? error.message : error).split('\n');
      if (folder === undefined) return { problem };
      throw new Error(`kernels ${folder}: ${problem}; name another folder, or leave kernels out`);
    }
  }

  /** Gives back what the arena, which all sessions share, does not use now: only a run can ask for that. */
  private shrinkArena(): void {
    const { ort } = this;
    const [one, other] = [this.newValue(oneNumber), this.newValue(oneNumber)];
    const copier = this.makeSession(copierModel('float', 1));
    const settings = made((out) => ort.CreateRunOptions(out));
    try {
      ort.AddRunConfigEntry(settings, 'memory.enable_memory_arena_shrinkage', 'cpu:0');
      const [name, result] = [this.addresses(['value']), this.addresses(['copy'])];
      ort.Run(copier, settings, name, handles([one]), 1, result, 1, handles([other]));
    } finally {
      ort.ReleaseRunOptions(settings);
      ort.ReleaseSession(copier);
      this.release(one);
      this.release(other);
    }
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
    try {
      this.ort.ReleaseSession(this.makeSession(copierModel('float', 1)));
      return true;
    } catch {
      return false;
    }
  }

  private makeSession(model: Uint8Array): bigint {
    const options = this.sessionOptions();
    try {
      return made((out) =>
        this.ort.CreateSessionFromArray(this.environment, model, model.byteLength, options, out),
      );
    } finally {
      this.ort.ReleaseSessionOptions(options);
    }
  }

  private sessionOptions(): bigint {
    const { ort } = this;
    const options = made((out) => ort.CreateSessionOptions(out));
    ort.SetSessionLogSeverityLevel(options, fatal);
    if (this.sharesThreads) ort.DisablePerSessionThreads(options);
    else ort.SetIntraOpNumThreads(options, this.threads);
    // A pattern is a block for all values of a run, beside what the first run took from the arena value by value.
    ort.DisableMemPattern(options);
    if (this.operators !== undefined) ort.AddCustomOpDomain(options, this.operators);
    const entries = {
      'session.use_env_allocators': '1',
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

/** For each result the fed value whose memory it takes over, if any: one that nobody reads later, fed once. */
function takeOver({
  feeds,
  fetches,
  flat,
  spare,
}: SessionRun<bigint, NativeValue>): (NativeValue | undefined)[] {
  const partner = new Map(flat?.inPlace);
  return fetches.map((_, index) => {
    const value = feeds[partner.get(index) ?? -1]?.[1];
    const fits = value !== undefined && spare.has(value);
    return fits && feeds.filter(([, other]) => other === value).length === 1 ? value : undefined;
  });
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
