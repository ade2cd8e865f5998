import { UserError } from '../errors.ts';
import { MediaProcess, type ProcessLimits } from './media-process.ts';

/** A few media child processes, lent one at a time. They start when first needed; dead ones are replaced. */
export class ProcessPool implements AsyncDisposable {
  readonly #limits: ProcessLimits;
  readonly #most: number;
  readonly #idle: MediaProcess[] = [];
  readonly #lent = new Set<MediaProcess>();
  readonly #waiting: { give: (process: MediaProcess) => void; refuse: (error: Error) => void }[] = [];
  #closed = false;

  /** @param most processes at once, at least 1. */
  constructor(most: number, limits: ProcessLimits) {
    this.#most = most;
    this.#limits = limits;
  }

  /** A process of one's own until it is given back to {@link release}; waits while all are lent. */
  async acquire(): Promise<MediaProcess> {
    if (this.#closed)
      throw new UserError('media reader: already closed; keep it open until all reading is done');
    const idle = this.#idle.pop();
    if (idle?.alive) return this.#lend(idle);
    if (idle) return await this.acquire();
    if (this.#lent.size < this.#most) return this.#lend(new MediaProcess(this.#limits));
    return await new Promise((give, refuse) => this.#waiting.push({ give, refuse }));
  }

  /** Takes a process back, dead or alive. */
  release(process: MediaProcess): void {
    if (!this.#lent.delete(process) || this.#closed) return;
    if (!process.alive) void process.end();
    const next = this.#waiting.shift();
    if (next) next.give(this.#lend(process.alive ? process : new MediaProcess(this.#limits)));
    else if (process.alive) this.#idle.push(process);
  }

  /** Ends all processes; those who wait or work are refused. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const { refuse } of this.#waiting.splice(0))
      refuse(new UserError('media reader: closed while waiting'));
    await Promise.all([...this.#idle.splice(0), ...this.#lent].map((process) => process.end()));
    this.#lent.clear();
  }

  #lend(process: MediaProcess): MediaProcess {
    this.#lent.add(process);
    return process;
  }
}
