import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { launchVariables } from './launch.ts';
import { formatPatience, isStalled, Pulse, stalled } from './watch.ts';

/** Several processes of one program on this machine. */
export interface Supervision {
  /** Arguments of Node: its own, the program, and the program's. */
  readonly args: readonly string[];
  readonly count: number;
  /** Aborted: every process is asked to stop, as Ctrl-C does. */
  readonly signal: AbortSignal;
  /**
   * Milliseconds in which some process that reports steps has to finish one, else all are ended. Default: any time. See
   * {@link report}.
   */
  readonly patience?: number;
}

/** What a supervised process says of itself. */
export type Report =
  /** It finished a step, or begins after one: the next is awaited. */
  | { readonly kind: 'step'; readonly step: number }
  /** It does something of unknown length. */
  | { readonly kind: 'rest' }
  /** The answer to the question whether it is there. */
  | { readonly kind: 'here' };

/** How a supervision ended. */
export interface SupervisedEnd {
  /** Exit code of process 0 where it ended by itself, else 1. */
  readonly code: number;
  /** What to tell the user, when process 0 did not: which process ended first, and how. */
  readonly problem?: string;
}

/** Set in a process that is supervised. */
export const supervisedVariable = 'ZOETROPE_SUPERVISED';

/** How long process 0 has to say itself what is wrong, and what is kept of what the others say. */
const grace = 1500;
const keptText = 4096;

/** How long processes may take to answer, and to end when they are killed. */
const answerTime = 3000;
const endTime = 10_000;

/**
 * Runs a program as several processes that find each other by the variables of torchrun. The first that fails ends all, and
 * so does one that hangs. Process 0 has this process's output; of the others the last words are kept.
 */
export async function supervise({ args, count, signal, patience }: Supervision): Promise<SupervisedEnd> {
  const port = await freePort();
  const members = Array.from({ length: count }, (_, rank) => new Member(args, { rank, count, port }));
  const stop = () => {
    for (const { child } of members) child.kill('SIGINT');
  };
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop);
  const watching = new AbortController();
  try {
    const hung = patience === undefined ? [] : [firstHang(members, patience, watching.signal)];
    const failed = await Promise.race([firstFailure(members), ...hung]);
    if (failed === undefined) return { code: 0 };
    if (typeof failed === 'string') return { code: 1, problem: failed };
    const first = members[0];
    await Promise.race([first?.ended, sleep(grace, undefined, { ref: false })]);
    const own = first?.child.exitCode ?? null;
    if (own !== null && own !== 0) return { code: own };
    return { code: 1, problem: failed.describe(count) };
  } finally {
    watching.abort();
    signal.removeEventListener('abort', stop);
    for (const { child } of members) child.kill('SIGKILL');
    // What waits inside the driver may not even be killed.
    await Promise.race([
      Promise.all(members.map(({ ended }) => ended)),
      sleep(endTime, undefined, { ref: false }),
    ]);
    for (const { child } of members) {
      child.unref();
      child.channel?.unref();
      child.stderr?.destroy();
    }
  }
}

/** Says to the supervisor, if there is one, how far this process is. */
export function report(message: Report): void {
  // A supervisor that has just ended ends this process too.
  if (isSupervised()) process.send?.(message, undefined, undefined, () => undefined);
}

/** Ends this process, if it is supervised, as soon as its supervisor has ended, and answers its questions. */
export function endWithSupervisor(): void {
  if (!isSupervised()) return;
  process.on('message', () => report({ kind: 'here' }));
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  // Listening must not keep the process alive.
  process.channel?.unref();
}

/** Whether another process of ours watches this one. */
export function isSupervised(): boolean {
  return process.env[supervisedVariable] === '1' && process.connected;
}

async function firstFailure(members: readonly Member[]): Promise<Member | undefined> {
  return await new Promise((resolve) => {
    let running = members.length;
    for (const member of members) {
      void member.ended.then(() => {
        running--;
        if (member.isFailed) resolve(member);
        else if (running === 0) resolve(undefined);
      });
    }
  });
}

/** Resolves to what is to be said when no step is finished for too long; never otherwise. */
async function firstHang(members: readonly Member[], patience: number, signal: AbortSignal): Promise<string> {
  const pulses = members.map(({ pulse }) => pulse);
  for (;;) {
    await stalled(pulses, patience, signal).catch(() => new Promise<never>(() => undefined));
    for (const member of members) member.ask();
    await sleep(answerTime, undefined, { ref: false });
    // This process may have stood still itself.
    if (isStalled(pulses, patience)) return hangMessage(members, patience);
  }
}

function hangMessage(members: readonly Member[], patience: number): string {
  const silent = members.flatMap(({ isThere }, rank) => (isThere ? [] : [rank]));
  const last = members.reduce((a, b) => (b.pulse.time > a.pulse.time ? b : a));
  const when = `no step was finished for ${formatPatience(patience)}; process ${last.rank} was heard of last, at step ${last.pulse.step}`;
  const who = `process ${silent.join(', ')} of ${members.length}`;
  const cause =
    silent.length > 0
      ? `${who} does not answer, and ${when}; see what holds it`
      : `${when}; all ${members.length} answer, so a GPU or the way between them hangs; see nvidia-smi, and NCCL_DEBUG=INFO`;
  return `${cause}; all are stopped, and --resume goes on from the newest checkpoint`;
}

class Member {
  readonly child: ChildProcess;
  readonly pulse = new Pulse();
  /** Whether it answered when it was asked last. */
  isThere = false;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  readonly rank: number;
  private lastWords = '';

  constructor(args: readonly string[], { rank, count, port }: { rank: number; count: number; port: number }) {
    const launch = { rank, world: count, localRank: rank, localWorld: count, address: '127.0.0.1', port };
    this.rank = rank;
    this.child = spawn(process.execPath, args, {
      env: { ...process.env, ...launchVariables(launch), [supervisedVariable]: '1' },
      // A group of its own: a terminal's Ctrl-C reaches this process alone, which passes it on once.
      detached: true,
      stdio: rank === 0 ? ['ignore', 'inherit', 'inherit', 'ipc'] : ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.lastWords = (this.lastWords + chunk.toString()).slice(-keptText);
    });
    this.child.on('message', (message) => this.hear(message as Report));
    this.ended = once(this.child, 'close').then(
      () => undefined,
      (error: Error) => {
        this.lastWords = error.message;
      },
    );
  }

  /** Asks whether it is there. */
  ask(): void {
    this.isThere = false;
    if (this.child.connected) this.child.send({}, () => undefined);
  }

  get isFailed(): boolean {
    return this.child.exitCode !== 0;
  }

  private hear(message: Report): void {
    switch (message.kind) {
      case 'step':
        this.pulse.beat(message.step);
        break;
      case 'rest':
        this.pulse.rest();
        break;
      case 'here':
        this.isThere = true;
    }
  }

  describe(count: number): string {
    const { exitCode, signalCode } = this.child;
    const line =
      exitCode === null
        ? undefined
        : this.lastWords
            .trim()
            .split('\n')
            .at(-1)
            ?.replace(/^zoetrope: /, '');
    const how = line || `it ended with ${signalCode ?? `code ${exitCode}`}`;
    return `process ${this.rank} of ${count}: ${how}; all are stopped, and --resume goes on from the newest checkpoint`;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port was given');
  return address.port;
}
