import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.ts';
import {
  type AnswerHeader,
  type AskHeader,
  type Calls,
  encodeHead,
  MessageAssembler,
  type Slot,
} from './child/protocol.ts';
import { SlotFile } from './slot-file.ts';

/** Bounds on a media child process. */
export interface ProcessLimits {
  /** Seconds that one call may take. */
  readonly seconds: number;
  /** Bytes of resident memory: looked at ten times a second where the system has /proc, elsewhere after each call. */
  readonly memory: number;
}

interface Pending {
  readonly resolve: (value: { answer: unknown; payload: Uint8Array }) => void;
  readonly reject: (error: Error) => void;
  /** Seconds the call has been the one the child works on. */
  spent: number;
}

const mainFile = new URL(`./child/main.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url);

/** Seconds between looks at a working child. */
const lookEvery = 0.1;

/**
 * A child process that reads and writes media (`child/protocol.ts`), watched while it works: it is killed when a call
 * takes too long or its memory grows too large, and all its calls fail with the reason.
 */
export class MediaProcess {
  readonly #limits: ProcessLimits;
  readonly #slots: readonly [SlotFile, SlotFile];
  readonly #child: ChildProcess;
  readonly #pending: Pending[] = [];
  readonly #exited: Promise<void>;
  #stderr = '';
  #death: string | undefined;
  #watch: NodeJS.Timeout | undefined;
  #lastLook = 0;

  constructor(limits: ProcessLimits) {
    this.#limits = limits;
    this.#slots = [new SlotFile(), new SlotFile()];
    this.#child = spawn(process.execPath, [fileURLToPath(mainFile)], {
      stdio: ['pipe', 'pipe', 'pipe', this.#slots[0].file, this.#slots[1].file],
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    const assembler = new MessageAssembler((header, payload) =>
      this.#deliver(header as AnswerHeader, payload),
    );
    this.#child.stdout?.on('data', (bytes: Buffer) => {
      try {
        assembler.push(bytes);
      } catch (error) {
        this.kill(`its process gave an unreadable answer (${String(error)})`);
      }
    });
    this.#child.stderr?.on('data', (bytes: Buffer) => {
      this.#stderr = (this.#stderr + bytes.toString()).slice(-2000);
    });
    // A write to a child that has died fails here; its exit says why.
    this.#child.stdin?.on('error', () => {});
    this.#exited = new Promise((resolve) => {
      this.#child.on('error', (error) => {
        this.#fail(`its process cannot be started (${error.message})`);
        resolve();
      });
      this.#child.on('close', (code, signal) => {
        const last = this.#stderr.trim().split('\n').pop() ?? '';
        this.#fail(
          `its process ended (${signal ?? `exit code ${code}`}${last ? `, ${last.slice(0, 200)}` : ''})`,
        );
        resolve();
      });
    });
  }

  /** Whether it can take calls. */
  get alive(): boolean {
    return this.#death === undefined;
  }

  /**
   * Asks the child; several calls may be under way and are answered in order.
   *
   * @throws UserError when the child says so, with its message; or as `NAME: reason` when it has died.
   */
  async call<K extends keyof Calls>(
    name: string,
    call: K,
    ask: Calls[K]['ask'],
    payload: Uint8Array = new Uint8Array(0),
  ): Promise<{ answer: Calls[K]['answer']; payload: Uint8Array }> {
    if (this.#death !== undefined) throw new UserError(`${name}: ${this.#death}`);
    const answered = new Promise<{ answer: unknown; payload: Uint8Array }>((resolve, reject) => {
      this.#pending.push({ resolve, reject: (error) => reject(named(name, error)), spent: 0 });
    });
    this.#startWatching();
    const header: AskHeader = { call, ask };
    this.#child.stdin?.write(encodeHead(header, payload.length));
    if (payload.length > 0) this.#child.stdin?.write(payload);
    const { answer, payload: frames } = await answered;
    return { answer: answer as Calls[K]['answer'], payload: frames };
  }

  /** The first bytes of what the child has put into a slot. */
  async readSlot(slot: Slot, bytes: number): Promise<Uint8Array> {
    return await this.#slots[slot].read(bytes);
  }

  /** Ends the child at once; calls under way fail with `reason`. */
  kill(reason: string): void {
    this.#fail(reason);
    this.#child.kill('SIGKILL');
  }

  /** Ends the child and waits until it is gone. */
  async end(): Promise<void> {
    this.kill('reading was stopped');
    await this.#exited;
    for (const slot of this.#slots) slot.close();
  }

  #deliver(header: AnswerHeader, payload: Uint8Array): void {
    const pending = this.#pending.shift();
    if (this.#pending.length === 0) this.#stopWatching();
    if (!pending) return;
    const { error, answer, resident } = header;
    if (!error) pending.resolve({ answer, payload });
    else pending.reject(error.user ? new UserError(error.message) : new Error(error.message));
    this.#checkMemory(resident);
  }

  #fail(reason: string): void {
    this.#death ??= reason;
    this.#stopWatching();
    for (const pending of this.#pending.splice(0)) pending.reject(new DeadProcess(this.#death));
  }

  #startWatching(): void {
    if (this.#watch) return;
    this.#lastLook = performance.now();
    this.#watch = setInterval(() => void this.#look(), lookEvery * 1000);
  }

  #stopWatching(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
  }

  async #look(): Promise<void> {
    const now = performance.now();
    // Time in which this process itself was too busy to look is not held against the child.
    const passed = Math.min((now - this.#lastLook) / 1000, 2 * lookEvery);
    this.#lastLook = now;
    const head = this.#pending[0];
    if (!head) return;
    head.spent += passed;
    if (head.spent > this.#limits.seconds) {
      this.kill(`takes more than ${this.#limits.seconds} s; leave it out or raise the time limit`);
      return;
    }
    this.#checkMemory(await residentBytes(this.#child.pid));
  }

  #checkMemory(resident: number): void {
    if (resident > this.#limits.memory) {
      this.kill(
        `needs more than ${Math.round(this.#limits.memory / 2 ** 20)} MB of memory; raise the memory limit`,
      );
    }
  }
}

/** The process died under a call; becomes a {@link UserError} with the name of the file it was busy with. */
class DeadProcess extends Error {}

function named(name: string, error: Error): Error {
  if (error instanceof DeadProcess) return new UserError(`${name}: ${error.message}`);
  if (error instanceof UserError) return error;
  return new UserError(`${name}: cannot be processed (${error.message})`);
}

/**
 * Resident memory of a process in bytes; 0 where the system has no /proc. There, on macOS and Windows, what the child says
 * with each answer has to do: a call ends after a piece of frames or two seconds, and pixels are limited.
 */
async function residentBytes(pid: number | undefined): Promise<number> {
  try {
    const [, pages] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ');
    return Number(pages) * 4096;
  } catch {
    return 0;
  }
}
