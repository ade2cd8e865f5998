import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { launchVariables } from './launch.ts';

/** Several processes of one program on this machine. */
export interface Supervision {
  /** Arguments of Node: its own, the program, and the program's. */
  readonly args: readonly string[];
  readonly count: number;
  /** Aborted: every process is asked to stop, as Ctrl-C does. */
  readonly signal: AbortSignal;
}

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

/**
 * Runs a program as several processes that find each other by the variables of torchrun. The first that fails ends all.
 * Process 0 has this process's output; of the others the last words are kept.
 */
export async function supervise({ args, count, signal }: Supervision): Promise<SupervisedEnd> {
  const port = await freePort();
  const members = Array.from({ length: count }, (_, rank) => new Member(args, { rank, count, port }));
  const stop = () => {
    for (const { child } of members) child.kill('SIGINT');
  };
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop);
  try {
    const failed = await firstFailure(members);
    if (failed === undefined) return { code: 0 };
    const first = members[0];
    await Promise.race([first?.ended, sleep(grace, undefined, { ref: false })]);
    const own = first?.child.exitCode ?? null;
    if (own !== null && own !== 0) return { code: own };
    return { code: 1, problem: failed.describe(count) };
  } finally {
    signal.removeEventListener('abort', stop);
    for (const { child } of members) child.kill('SIGKILL');
    await Promise.all(members.map(({ ended }) => ended));
  }
}

/** Ends this process, if it is supervised, as soon as its supervisor has ended. */
export function endWithSupervisor(): void {
  if (!isSupervised()) return;
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

class Member {
  readonly child: ChildProcess;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  private readonly rank: number;
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
    this.ended = once(this.child, 'close').then(
      () => undefined,
      (error: Error) => {
        this.lastWords = error.message;
      },
    );
  }

  get isFailed(): boolean {
    return this.child.exitCode !== 0;
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
