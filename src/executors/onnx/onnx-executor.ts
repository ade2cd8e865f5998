import type { DType } from '../../tensor/dtype.ts';
import { fromFloat32, type HostTensor, hostTensor, toFloat32 } from '../../tensor/host-tensor.ts';
import { at, formatType, type Shape, type TensorType } from '../../tensor/shape.ts';
import type { Graph } from '../../tensor/tensor.ts';
import { verify } from '../../tensor/verify.ts';
import {
  type CompileOptions,
  checkInputs,
  type DeviceBuffer,
  type Executable,
  type Executor,
  ExecutorError,
  type OwnOperators,
} from '../executor.ts';
import { borderType, type OnnxDevice } from './emitter.ts';
import { type LoweredGraph, lowerGraph } from './lower.ts';
import type { HostConnection, HostRequest, HostSettings, HostStage, Started, Transfer } from './messages.ts';
import { planProgram } from './program.ts';

/**
 * Models that make no more than this pool their memory where sessions have pools of their own: those keep their largest
 * demand for ever. Where all share one arena, all pool.
 */
const pooledBytes = 2 ** 28;

/**
 * Runs graphs on ONNX Runtime. This side lowers graphs, names buffers and sends requests; the sessions and the values
 * are on the other side of a {@link HostConnection}, in a worker thread.
 */
export class OnnxExecutor implements Executor {
  readonly name: string;
  readonly threads?: number;
  private readonly connection: HostConnection;
  private readonly settings: HostSettings;
  private readonly pending = new Map<number, PromiseWithResolvers<Transfer | undefined>>();
  private readonly lowered = new WeakMap<Graph, Map<string, LoweredGraph>>();
  private readonly sessions = new SessionTable();
  private nextRequest = 0;
  private nextBuffer = 0;
  private nextProgram = 0;
  private failure: Error | undefined;
  private host: Started = {};
  private readonly started: Promise<unknown>;

  constructor(connection: HostConnection, settings: HostSettings) {
    this.name = `onnx ${settings.device}${settings.precision === 'bf16' ? ' bf16' : ''}`;
    this.connection = connection;
    this.settings = settings;
    if (settings.threads > 0) this.threads = settings.threads;
    connection.listen(
      (reply) => {
        this.settle(reply.id, (request) => {
          if ('error' in reply) request.reject(new ExecutorError(`${this.name}: ${reply.error}`));
          else {
            if (reply.started !== undefined) this.host = reply.started;
            request.resolve(reply.value);
          }
        });
      },
      (error) => this.fail(error),
    );
    // One that fails shows in the requests after it.
    this.started = this.ask({ kind: 'start', settings }).catch((error: Error) => {
      this.failure ??= error;
    });
  }

  async fallback(): Promise<string | undefined> {
    await this.started;
    return this.host.fallback;
  }

  async ownOperators(): Promise<OwnOperators | undefined> {
    await this.started;
    return this.host.ownOperators;
  }

  async compile(graph: Graph, { donate = [] }: CompileOptions = {}): Promise<Executable> {
    verify(graph, this.name);
    await this.started;
    if (this.failure !== undefined) throw this.failure;
    if (this.roundsProducts && this.host.ownOperators?.bfloat16 !== true)
      throw new ExecutorError(
        `${this.name}: no operators of ours multiply bfloat16 here; leave precision bf16 out`,
      );
    const planned = planProgram(graph, donate, (stage, wanted) => this.lower(stage, wanted));
    const created: Promise<unknown>[] = [];
    const stages = planned.stages.map(({ lowered, ...stage }): HostStage => {
      const { session, isNew } = this.sessions.acquire(lowered.model);
      const pool = lowered.bytes <= pooledBytes;
      const { model } = lowered;
      if (isNew) created.push(this.ask({ kind: 'session', session, model: { model, pool } }));
      return { ...stage, session };
    });
    const program = this.nextProgram++;
    this.tell({ kind: 'program', program, plan: { ...planned, stages } });
    const executable = new OnnxExecutable(graph, program, donate, () => this.drop(program, stages));
    try {
      await Promise.all(created);
    } catch (error) {
      await Promise.allSettled(created);
      executable[Symbol.dispose]();
      throw error;
    }
    return executable;
  }

  upload(tensor: HostTensor): DeviceBuffer {
    const buffer = this.newBuffer(tensor);
    this.tell({ kind: 'upload', buffer: buffer.id, value: toTransfer(tensor, this.settings.device) });
    return buffer;
  }

  async download(buffer: DeviceBuffer): Promise<HostTensor> {
    const value = await this.ask({ kind: 'download', buffer: this.own(buffer).id });
    if (value === undefined) throw new ExecutorError(`${this.name}: a download gave no value`);
    return fromTransfer(value, buffer);
  }

  async run(executable: Executable, inputs: readonly DeviceBuffer[]): Promise<readonly DeviceBuffer[]> {
    if (!(executable instanceof OnnxExecutable))
      throw new ExecutorError(`${this.name}: the executable is another executor's`);
    checkInputs(executable, inputs);
    const given = inputs.map((buffer) => this.own(buffer).id);
    const outputs = executable.graph.outputs.map((output) => this.newBuffer(output));
    const { program } = executable;
    const running = this.ask({ kind: 'run', program, inputs: given, outputs: outputs.map(({ id }) => id) });
    for (const index of executable.donated) this.own(at(inputs, index)).disposed = true;
    await running;
    return outputs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.failure ??= new ExecutorError(`${this.name}: the executor was disposed`);
    await this.connection.close();
    this.fail(this.failure);
  }

  private get roundsProducts(): boolean {
    return this.settings.precision === 'bf16';
  }

  private lower(graph: Graph, wanted: readonly number[]): LoweredGraph {
    const known = this.lowered.get(graph) ?? new Map<string, LoweredGraph>();
    this.lowered.set(graph, known);
    const lowered =
      known.get(wanted.join()) ??
      lowerGraph(graph, wanted, {
        ...this.settings,
        ownOperators: this.host.ownOperators?.level !== undefined,
        roundsProducts: this.roundsProducts,
      });
    known.set(wanted.join(), lowered);
    return lowered;
  }

  private drop(program: number, stages: readonly HostStage[]): void {
    this.tell({ kind: 'dropProgram', program });
    for (const { session } of stages) {
      if (this.sessions.release(session)) this.tell({ kind: 'dropSession', session });
    }
  }

  private newBuffer(type: TensorType): OnnxBuffer {
    return new OnnxBuffer(this.nextBuffer++, type, this, (id) => this.tell({ kind: 'free', buffer: id }));
  }

  private own(buffer: DeviceBuffer): OnnxBuffer {
    if (!(buffer instanceof OnnxBuffer) || buffer.owner !== this) {
      throw new ExecutorError(`${this.name}: the buffer is another executor's; download and upload it`);
    }
    if (buffer.disposed) throw new ExecutorError(`${this.name}: ${formatType(buffer)} was disposed`);
    return buffer;
  }

  private ask(request: HostRequest): Promise<Transfer | undefined> {
    const answer = Promise.withResolvers<Transfer | undefined>();
    if (this.failure !== undefined) {
      answer.reject(this.failure);
      return answer.promise;
    }
    const id = this.nextRequest++;
    this.pending.set(id, answer);
    this.connection.keepAlive(true);
    this.connection.send({ id, request });
    return answer.promise;
  }

  /** A request whose answer nobody waits for; one that fails shows in the requests that depend on it. */
  private tell(request: HostRequest): void {
    this.ask(request).catch(() => undefined);
  }

  private settle(id: number, settle: (request: PromiseWithResolvers<Transfer | undefined>) => void): void {
    const request = this.pending.get(id);
    this.pending.delete(id);
    if (this.pending.size === 0) this.connection.keepAlive(false);
    if (request !== undefined) settle(request);
  }

  private fail(error: Error): void {
    this.failure ??= new ExecutorError(`${this.name}: ${error.message}`);
    const { failure } = this;
    for (const id of [...this.pending.keys()]) this.settle(id, (request) => request.reject(failure));
  }
}

class OnnxBuffer implements DeviceBuffer {
  readonly id: number;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly owner: OnnxExecutor;
  disposed = false;
  private readonly free: (id: number) => void;

  constructor(id: number, { shape, dtype }: TensorType, owner: OnnxExecutor, free: (id: number) => void) {
    this.id = id;
    this.shape = shape;
    this.dtype = dtype;
    this.owner = owner;
    this.free = free;
  }

  [Symbol.dispose](): void {
    if (!this.disposed) this.free(this.id);
    this.disposed = true;
  }
}

class OnnxExecutable implements Executable {
  readonly graph: Graph;
  readonly program: number;
  readonly donated: ReadonlySet<number>;
  private release: (() => void) | undefined;

  constructor(graph: Graph, program: number, donated: readonly number[], release: () => void) {
    this.graph = graph;
    this.program = program;
    this.donated = new Set(donated);
    this.release = release;
  }

  [Symbol.dispose](): void {
    this.release?.();
    this.release = undefined;
  }
}

/** Sessions by the content of their model, counted by the programs that use them. */
class SessionTable {
  private readonly names = new Map<string, { name: string; uses: number }>();
  private readonly keys = new Map<string, string>();
  private next = 0;

  acquire(model: Uint8Array): { session: string; isNew: boolean } {
    const key = contentKey(model);
    const known = this.names.get(key);
    if (known !== undefined) {
      known.uses++;
      return { session: known.name, isNew: false };
    }
    const name = `s${this.next++}`;
    this.names.set(key, { name, uses: 1 });
    this.keys.set(name, key);
    return { session: name, isNew: true };
  }

  /** Whether nothing uses the session any more. */
  release(session: string): boolean {
    const key = this.keys.get(session) ?? '';
    const entry = this.names.get(key);
    if (entry === undefined || --entry.uses > 0) return false;
    this.names.delete(key);
    this.keys.delete(session);
    return true;
  }
}

/** The bytes themselves as a string: models are some tens of kilobytes, and equal keys must mean equal models. */
function contentKey(model: Uint8Array): string {
  return new TextDecoder('latin1').decode(model);
}

function toTransfer(tensor: HostTensor, device: OnnxDevice): Transfer {
  const { shape } = tensor;
  switch (borderType(tensor.dtype, device)) {
    case 'float':
      return { type: 'float32', shape, data: toFloat32(tensor) };
    case 'int32':
      return {
        type: 'int32',
        shape,
        data: tensor.data instanceof Int32Array ? tensor.data : Int32Array.from(tensor.data),
      };
    case 'bool':
      return { type: 'bool', shape, data: Uint8Array.from(tensor.data) };
  }
}

function fromTransfer({ data }: Transfer, { shape, dtype }: TensorType): HostTensor {
  if (dtype === 'bool') return hostTensor(dtype, shape, Uint8Array.from(data));
  if (data instanceof Int32Array) return hostTensor('i32', shape, data);
  if (!(data instanceof Float32Array))
    throw new TypeError(`float values came back as ${data.constructor.name}`);
  return fromFloat32(dtype === 'f16' || dtype === 'bf16' ? dtype : 'f32', shape, data);
}
