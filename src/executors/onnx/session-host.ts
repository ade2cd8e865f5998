import type {
  HostProgram,
  HostReply,
  HostRequest,
  HostSettings,
  HostStage,
  NumberedRequest,
  Started,
  Transfer,
} from './messages.ts';
import type { Runtime } from './runtime.ts';

/** Sends a reply; memory in `transfer` leaves this thread with it. */
export type Reply = (message: HostReply, transfer: ArrayBuffer[]) => void;

/**
 * Owns ONNX Runtime's sessions and values, and serves requests one after the other. Runs in a worker thread, because a
 * session's run blocks its thread from start to end.
 */
export class SessionHost<Session, Value> {
  private readonly runtime: Runtime<Session, Value>;
  private readonly isStopped: () => boolean;
  private readonly fallback: string | undefined;
  private readonly sessions = new Map<string, Session>();
  private readonly programs = new Map<number, HostProgram>();
  private readonly buffers = new Map<number, Value>();
  private queue: Promise<void> = Promise.resolve();

  /**
   * @param isStopped whether to give up: what is not yet begun is refused. Default: never.
   * @param fallback what the runtime stands in for, and why.
   */
  constructor(runtime: Runtime<Session, Value>, isStopped = () => false, fallback?: string) {
    this.runtime = runtime;
    this.isStopped = isStopped;
    this.fallback = fallback;
  }

  /** Serves a request after all earlier ones; `reply` is called exactly once. */
  accept({ id, request }: NumberedRequest, reply: Reply): void {
    this.queue = this.queue.then(async () => {
      try {
        this.checkRunning();
        if (request.kind === 'start') return reply({ id, started: this.start(request.settings) }, []);
        const value = await this.serve(request);
        const own = value !== undefined && this.runtime.handsOver ? [value.data.buffer as ArrayBuffer] : [];
        reply(value === undefined ? { id } : { id, value }, own);
      } catch (error) {
        reply({ id, error: error instanceof Error ? error.message : String(error) }, []);
      }
    });
  }

  /** Frees everything, after what is being served. */
  async close(): Promise<void> {
    await this.queue;
    for (const value of this.buffers.values()) this.runtime.release(value);
    for (const session of this.sessions.values()) await this.runtime.releaseSession(session);
    this.runtime.close();
  }

  private checkRunning(): void {
    if (this.isStopped()) throw new Error('the executor was disposed');
  }

  private start(settings: HostSettings): Started {
    const ownOperators = this.runtime.start(settings);
    return {
      ...(ownOperators && { ownOperators }),
      ...(this.fallback !== undefined && { fallback: this.fallback }),
    };
  }

  private async serve(request: Exclude<HostRequest, { kind: 'start' }>): Promise<Transfer | undefined> {
    switch (request.kind) {
      case 'session':
        this.sessions.set(request.session, await this.runtime.createSession(request.model));
        return undefined;
      case 'dropSession':
        await this.dropSession(request.session);
        return undefined;
      case 'upload':
        this.buffers.set(request.buffer, this.runtime.upload(request.value));
        return undefined;
      case 'download':
        return this.runtime.download(found('buffer', this.buffers, request.buffer));
      case 'free':
        this.free(request.buffer);
        return undefined;
      case 'program':
        this.programs.set(request.program, request.plan);
        return undefined;
      case 'dropProgram':
        this.programs.delete(request.program);
        this.runtime.trim();
        return undefined;
      case 'run':
        return this.run(found('program', this.programs, request.program), request.inputs, request.outputs);
    }
  }

  private async dropSession(name: string): Promise<void> {
    const session = this.sessions.get(name);
    this.sessions.delete(name);
    if (session !== undefined) await this.runtime.releaseSession(session);
  }

  private free(buffer: number): void {
    const value = this.buffers.get(buffer);
    this.buffers.delete(buffer);
    if (value !== undefined) this.runtime.release(value);
  }

  private async run(
    program: HostProgram,
    inputs: readonly number[],
    outputs: readonly number[],
  ): Promise<undefined> {
    const given = inputs.map((buffer) => found('buffer', this.buffers, buffer));
    const slots = new Map(given.map((value, slot) => [slot, value]));
    // What this run may free: values it makes, and donated inputs from the start, so that each goes after its last use.
    const made = new Set(program.donated.map((index) => found('value', slots, index)));
    for (const index of program.donated) this.buffers.delete(inputs[index] ?? -1);
    try {
      for (const stage of program.stages) {
        this.checkRunning();
        await this.runStage(stage, slots, made);
        for (const slot of stage.last) this.freeSlot(slots, slot, made);
      }
    } catch (error) {
      for (const value of made) this.runtime.release(value);
      throw error;
    }
    const results = program.outputs.map((slot) => found('value', slots, slot));
    // A donated input that nothing reads has no last use.
    for (const value of made) if (!results.includes(value)) this.runtime.release(value);
    await Promise.all(
      results.map(async (value, index) => {
        // A result that is an input, or an earlier result too, becomes a value of its own.
        const shared = !made.has(value) || results.indexOf(value) < index;
        this.buffers.set(outputs[index] ?? -1, shared ? await this.runtime.copy(value) : value);
      }),
    );
    return undefined;
  }

  private async runStage(stage: HostStage, slots: Map<number, Value>, made: Set<Value>): Promise<void> {
    const feeds = stage.feeds.map(([name, slot]) => [name, found('value', slots, slot)] as const);
    const dying = stage.last.flatMap((slot) => slots.get(slot) ?? []);
    const results = await this.runtime.run({
      session: found('session', this.sessions, stage.session),
      feeds,
      fetches: stage.fetches.map(([fetch]) => fetch),
      spare: new Set(dying.filter((value) => made.has(value))),
      ...(stage.flat && { flat: stage.flat }),
    });
    // Values that results took over are in their slots no more.
    for (const slot of stage.last) if (results.includes(slots.get(slot) as Value)) slots.delete(slot);
    stage.fetches.forEach(([, slot], index) => {
      const value = results[index];
      if (value === undefined) throw new Error(`the session gave no output ${index}`);
      slots.set(slot, value);
      made.add(value);
    });
  }

  private freeSlot(slots: Map<number, Value>, slot: number, made: Set<Value>): void {
    const value = slots.get(slot);
    slots.delete(slot);
    if (value !== undefined && made.delete(value)) this.runtime.release(value);
  }
}

/** An item that must be there: an executable or buffer that was disposed is not. */
function found<Key, Item>(what: string, items: ReadonlyMap<Key, Item>, key: Key): Item {
  const item = items.get(key);
  if (item === undefined) throw new Error(`${what} ${String(key)} is not here; it was disposed`);
  return item;
}
