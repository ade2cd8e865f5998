import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Precision } from '../../src/executors/executor.ts';
import type { BenchCase } from './cases.ts';
import type { WorkSettings } from './work.ts';

/** Settings of `ours.ts`. */
export interface OurSettings extends WorkSettings {
  /** `nvidia`, or for a dry run any device of ours, whose precision is its own. */
  readonly device: string;
  readonly precision: Precision;
}

/** Settings of `peer.py`. */
export interface PeerSettings {
  /** `cuda`, or for a dry run `cpu`. */
  readonly device: string;
  /** `eager`; `compile`; `blocks`: each block compiled by itself; `graphs`: compiled, and recorded as a CUDA graph. */
  readonly mode: string;
  /** Attention's kernels: PyTorch's own choice (`default`), or `cudnn`. */
  readonly attention: string;
}

/** Makes a case ready to run. */
export interface PrepareAsk {
  readonly do: 'prepare';
  readonly case: BenchCase;
  readonly settings: OurSettings | PeerSettings;
}

/** What the processes are asked. `finish` comes last. */
export type Ask = PrepareAsk | { readonly do: 'run'; readonly count: number } | { readonly do: 'finish' };

/** What they answer. */
export interface Answers {
  readonly prepare: {
    readonly device: string;
    /** Until the case could run: ours `compile` alone, PyTorch's its first runs. */
    readonly compileSeconds: number;
    readonly parameters: number;
    /** Most memory of the GPU until now. */
    readonly memoryBytes: number;
    readonly traceSeconds?: number;
    /** From the graph's tracing to the end of the warm-up, uploads included. */
    readonly readySeconds?: number;
  };
  /** Of one run, when `count` are queued one after the other. */
  readonly run: { readonly milliseconds: number };
  readonly finish: { readonly hostMicroseconds?: number; readonly memoryBytes?: number };
}

/** A process that answers {@link Ask}s, one line each. */
export class Side {
  readonly name: string;
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;

  constructor(name: string, command: readonly [string, ...string[]], env: Readonly<Record<string, string>>) {
    this.name = name;
    const [program, ...args] = command;
    this.child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    // A process that cannot be started, or died, ends its lines; that is where it is noticed.
    this.child.on('error', () => undefined);
    this.child.stdin?.on('error', () => undefined);
    const output = this.child.stdout;
    if (output === null) throw new Error(`${name}: no output`);
    this.lines = createInterface({ input: output })[Symbol.asyncIterator]();
  }

  /** @throws Error with its message, or when it ends or does not answer within `seconds`; then it is ended. */
  async ask<A extends Ask>(ask: A, seconds: number): Promise<Answers[A['do']]> {
    this.child.stdin?.write(`${JSON.stringify(ask)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`no answer to ${ask.do} in ${seconds.toFixed(0)} s`)),
        1000 * seconds,
      );
    });
    try {
      const { value, done } = await Promise.race([this.lines.next(), late]);
      if (done) throw new Error(`the process ended during ${ask.do}`);
      const answer = JSON.parse(value) as Answers[A['do']] & { readonly error?: string };
      if (answer.error !== undefined) throw new Error(answer.error);
      return answer;
    } catch (error) {
      this.end();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the process, which frees its memory of the GPU. */
  end(): void {
    this.child.kill('SIGKILL');
  }
}
