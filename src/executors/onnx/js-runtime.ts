import type * as Ort from 'onnxruntime-common';
import { sameShape } from '../../tensor/shape.ts';
import type { OwnOperators } from '../executor.ts';
import type { HostSettings, SessionModel, Transfer } from './messages.ts';
import { copierModel } from './model.ts';
import type { Runtime, SessionRun } from './runtime.ts';

/** The part of ONNX Runtime's JavaScript API that both its Node and its browser packages have. */
export type OrtApi = Pick<typeof Ort, 'InferenceSession' | 'Tensor'>;

/** ONNX Runtime through its JavaScript packages. */
export class JsRuntime implements Runtime<Ort.InferenceSession, Ort.Tensor> {
  /** Downloads show the memory of the value itself. */
  readonly handsOver = false;
  private readonly ort: OrtApi;
  /** Sessions that copy a device tensor to the host, by type and rank. */
  private readonly copiers = new Map<string, Ort.InferenceSession>();
  /** Values on the device, and the session that made each: their memory is the session's. */
  private readonly makers = new Map<Ort.Tensor, Ort.InferenceSession>();
  /** Sessions that nobody runs any more, but whose values may live. */
  private readonly ended = new Set<Ort.InferenceSession>();
  private settings: HostSettings = { device: 'cpu', threads: 0, strict: false, scoreBytes: 0 };

  constructor(ort: OrtApi) {
    this.ort = ort;
  }

  start(settings: HostSettings): OwnOperators | undefined {
    this.settings = settings;
    const problem = "ONNX Runtime's JavaScript package takes none";
    if (typeof settings.kernels === 'string')
      throw new Error(`kernels ${settings.kernels}: ${problem}; leave kernels out`);
    return settings.device === 'cpu' ? { problem } : undefined;
  }

  createSession({ model, pool }: SessionModel): Promise<Ort.InferenceSession> {
    return this.ort.InferenceSession.create(model, this.sessionOptions(pool));
  }

  /** A session whose values live goes with the next one after them: to free a value after its session is a crash. */
  async releaseSession(session: Ort.InferenceSession): Promise<void> {
    this.ended.add(session);
    const needed = new Set(this.makers.values());
    for (const one of [...this.ended].filter((other) => !needed.has(other))) {
      this.ended.delete(one);
      await one.release();
    }
  }

  upload({ type, shape, data }: Transfer): Ort.Tensor {
    return new this.ort.Tensor(type, data as Float32Array, shape);
  }

  async download(tensor: Ort.Tensor): Promise<Transfer> {
    const { type, dims: shape } = tensor;
    if (type !== 'float32' && type !== 'int32' && type !== 'bool') throw new Error(`a value of type ${type}`);
    if (tensor.location === 'cpu') return { type, shape, data: tensor.data as Float32Array };
    // Reading a device tensor directly aborts the process in Node: have a session copy it out.
    const key = `${type}${shape.length}`;
    const session = this.copiers.get(key) ?? (await this.createCopier(type, shape.length));
    this.copiers.set(key, session);
    const { copy } = await session.run({ value: tensor });
    return { type, shape, data: copy?.data as Float32Array };
  }

  async copy(tensor: Ort.Tensor): Promise<Ort.Tensor> {
    const value = await this.download(tensor);
    return this.upload({ ...value, data: value.data.slice() });
  }

  /** Frees a tensor's memory now: device memory by `dispose`, host memory by detaching its array. */
  release(tensor: Ort.Tensor): void {
    if (tensor.location !== 'cpu') {
      tensor.dispose();
      this.makers.delete(tensor);
      return;
    }
    const { data } = tensor;
    if (ArrayBuffer.isView(data) && data.buffer instanceof ArrayBuffer) data.buffer.transfer(0);
  }

  async run({
    session,
    feeds,
    fetches,
    flat,
  }: SessionRun<Ort.InferenceSession, Ort.Tensor>): Promise<readonly Ort.Tensor[]> {
    const given = flat
      ? feeds.map(([name, value]) => [name, value.dims.length > 0 ? value.reshape([value.size]) : value])
      : feeds;
    const results = await session.run(Object.fromEntries(given));
    return fetches.map(({ name, shape }) => {
      const tensor = results[name];
      if (tensor === undefined) throw new Error(`the session gave no output ${name}`);
      const value = sameShape(tensor.dims, shape) ? tensor : tensor.reshape(shape);
      if (value.location !== 'cpu') this.makers.set(value, session);
      return value;
    });
  }

  /** Nothing: sessions take their memory with them. */
  trim(): void {}

  /** Nothing: the end of the thread frees everything. */
  close(): void {}

  private sessionOptions(pool: boolean): Ort.InferenceSession.SessionOptions {
    const { device, threads, strict } = this.settings;
    const onDevice = device === 'webgpu';
    return {
      executionProviders: [device],
      logSeverityLevel: 4,
      enableCpuMemArena: pool,
      ...(threads > 0 && { intraOpNumThreads: threads }),
      ...(onDevice && { preferredOutputLocation: 'gpu-buffer' }),
      extra: {
        session: {
          intra_op: { allow_spinning: '1' },
          force_spinning_stop: '1',
          // It would merge a recomputed block with the first computation and so keep everything after all.
          optimization: { disable_specified_optimizers: 'CommonSubexpressionElimination' },
          ...(strict && { disable_cpu_ep_fallback: '1' }),
        },
      },
    };
  }

  private createCopier(type: Transfer['type'], rank: number): Promise<Ort.InferenceSession> {
    const options = { ...this.sessionOptions(false), preferredOutputLocation: 'cpu' as const };
    return this.ort.InferenceSession.create(copierModel(type === 'float32' ? 'float' : type, rank), options);
  }
}
