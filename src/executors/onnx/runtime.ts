import type { OwnOperators } from '../executor.ts';
import type { Fetch, HostSettings, HostStage, SessionModel, Transfer } from './messages.ts';

/** A run of a session. */
export interface SessionRun<Session, Value> extends Pick<HostStage, 'flat'> {
  readonly session: Session;
  /** Values by the names that the model has for them. */
  readonly feeds: readonly (readonly [name: string, value: Value])[];
  readonly fetches: readonly Fetch[];
  /** Fed values that nobody reads after this run; results may be the same values, overwritten. */
  readonly spare: ReadonlySet<Value>;
}

/**
 * A way to ONNX Runtime: its JavaScript packages or its C library. Owns nothing; the session host says when sessions
 * and values go.
 */
export interface Runtime<Session, Value> {
  /**
   * Called once, before all else.
   * @returns what became of our own operators, which models may use where they have a level; undefined where nobody expects any.
   * @throws Error when a folder of them was given that cannot be used.
   */
  start(settings: HostSettings): OwnOperators | undefined;
  createSession(model: SessionModel): Promise<Session>;
  releaseSession(session: Session): Promise<void>;
  /** A value from host memory, which the runtime may keep and use. */
  upload(value: Transfer): Value;
  /** The values of a value. Whether they are memory of their own, the runtime says with {@link handsOver}. */
  download(value: Value): Promise<Transfer>;
  /** Whether what `download` gives belongs to the caller, who may transfer it to another thread. */
  readonly handsOver: boolean;
  /** A value of its own with the same contents. */
  copy(value: Value): Promise<Value>;
  /** Frees a value's memory now. */
  release(value: Value): void;
  /** Runs a session and gives what was fetched, in order. */
  run(run: SessionRun<Session, Value>): Promise<readonly Value[]>;
  /** Called when a program is dropped: memory that was kept for it may go. */
  trim(): void;
  /** Frees everything. Called last. */
  close(): void;
}
