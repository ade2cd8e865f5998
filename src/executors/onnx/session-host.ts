import type * as Ort from 'onnxruntime-common';
import type {
  HostProgram,
  HostReply,
  HostRequest,
  HostSettings,
  HostStage,
  NumberedRequest,
  Transfer,
} from './messages.ts';
import { copierModel } from './model.ts';

/** The part of ONNX Runtime's JavaScript API that both its Node and its browser packages have. */
export type OrtApi = Pick<typeof Ort, 'InferenceSession' | 'Tensor'>;

/**
 * Owns ONNX Runtime's sessions and values, and serves requests one after the other. Runs in a worker thread, because a
 * session's run blocks its thread from start to end.
 */
export class SessionHost {
  private readonly ort: OrtApi;
  private readonly sessions = new Map<string, Ort.InferenceSession>();
  private readonly programs = new Map<number, HostProgram>();
  private readonly buffers = new Map<number, Ort.Tensor>();
  /** Sessions that copy a device tensor to the host, by type and rank. */
  private readonly copiers = new Map<string, Ort.InferenceSession>();
  private settings: HostSettings = { device: 'cpu', threads: 0, strict: false, scoreBytes: 0 };
  private queue: Promise<void> = Promise.resolve();

  constructor(ort: OrtApi) {
    this.ort = ort;
  }

  /** Serves a request after all earlier ones; `reply` is called exactly once. */
  accept({ id, request }: NumberedRequest, reply: (message: HostReply) => void): void {
    this.queue = this.queue.then(async () => {
      try {
        const value = await this.serve(request);
        reply(value === undefined ? { id } : { id, value });
      } catch (error) {
        reply({ id, error: error instanceof Error ? error.message : String(error) });
      }
    });
  }

  private async serve(request: HostRequest): Promise<Transfer | undefined> {
    switch (request.kind) {
      case 'start':
        this.settings = request.settings;
        return undefined;
      case 'session':
        this.sessions.set(request.session, await this.create(request.model, request.pool));
        return undefined;
      case 'dropSession':
        await this.sessions.get(request.session)?.release();
        this.sessions.delete(request.session);
        return undefined;
      case 'upload':
        this.buffers.set(request.buffer, this.tensorOf(request.value));
        return undefined;
      case 'download':
        return this.download(found('buffer', this.buffers, request.buffer));
      case 'free':
        release(this.buffers.get(request.buffer));
        this.buffers.delete(request.buffer);
        return undefined;
      case 'program':
        this.programs.set(request.program, request.plan);
        return undefined;
      case 'dropProgram':
        this.programs.delete(request.program);
        return undefined;
      case 'run':
        return this.run(found('program', this.programs, request.program), request.inputs, request.outputs);
    }
  }

  private async run(
    program: HostProgram,
    inputs: readonly number[],
    outputs: readonly number[],
  ): Promise<undefined> {
    const given = inputs.map((buffer) => found('buffer', this.buffers, buffer));
    const slots = new Map(given.map((tensor, slot) => [slot, tensor]));
    // What this run may free: values it makes, and donated inputs from the start, so that each goes after its last use.
    const made = new Set(program.donated.map((index) => found('value', slots, index)));
    for (const index of program.donated) this.buffers.delete(inputs[index] ?? -1);
    try {
      for (const stage of program.stages) {
        await this.runStage(stage, slots, made);
        for (const slot of stage.last) freeSlot(slots, slot, made);
      }
    } catch (error) {
      for (const tensor of made) release(tensor);
      throw error;
    }
    const results = program.outputs.map((slot) => found('value', slots, slot));
    await Promise.all(
      results.map(async (tensor, index) => {
        // A result that is an input, or an earlier result too, becomes a value of its own.
        const shared = !made.has(tensor) || results.indexOf(tensor) < index;
        this.buffers.set(
          outputs[index] ?? -1,
          shared ? this.tensorOf(copied(await this.download(tensor))) : tensor,
        );
      }),
    );
    return undefined;
  }

  private async runStage(
    stage: HostStage,
    slots: Map<number, Ort.Tensor>,
    made: Set<Ort.Tensor>,
  ): Promise<void> {
    const feeds = Object.fromEntries(stage.feeds.map(([name, slot]) => [name, found('value', slots, slot)]));
    const results = await found('session', this.sessions, stage.session).run(feeds);
    for (const [name, slot] of stage.fetches) {
      const tensor = results[name];
      if (tensor === undefined) throw new Error(`the session gave no output ${name}`);
      slots.set(slot, tensor);
      made.add(tensor);
    }
  }

  private create(model: Uint8Array, pool: boolean): Promise<Ort.InferenceSession> {
    return this.ort.InferenceSession.create(model, this.sessionOptions(pool));
  }

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

  private tensorOf({ type, shape, data }: Transfer): Ort.Tensor {
    return new this.ort.Tensor(type, data as Float32Array, shape);
  }

  private async download(tensor: Ort.Tensor): Promise<Transfer> {
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

  private createCopier(type: Transfer['type'], rank: number): Promise<Ort.InferenceSession> {
    const options = { ...this.sessionOptions(false), preferredOutputLocation: 'cpu' as const };
    return this.ort.InferenceSession.create(copierModel(type === 'float32' ? 'float' : type, rank), options);
  }
}

function copied(value: Transfer): Transfer {
  return { ...value, data: value.data.slice() };
}

function freeSlot(slots: Map<number, Ort.Tensor>, slot: number, made: Set<Ort.Tensor>): void {
  const tensor = slots.get(slot);
  slots.delete(slot);
  if (tensor !== undefined && made.delete(tensor)) release(tensor);
}

/** Frees a tensor's memory now: device memory by `dispose`, host memory by detaching its array. */
function release(tensor: Ort.Tensor | undefined): void {
  if (tensor === undefined) return;
  if (tensor.location !== 'cpu') {
    tensor.dispose();
    return;
  }
  const { data } = tensor;
  if (ArrayBuffer.isView(data) && data.buffer instanceof ArrayBuffer) data.buffer.transfer(0);
}

/** An item that must be there: an executable or buffer that was disposed is not. */
function found<Key, Item>(what: string, items: ReadonlyMap<Key, Item>, key: Key): Item {
  const item = items.get(key);
  if (item === undefined) throw new Error(`${what} ${String(key)} is not here; it was disposed`);
  return item;
}
