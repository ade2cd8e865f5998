import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { UserError } from '../errors.ts';
import type { ProcessGroup } from '../executors/process-group.ts';
import type { Launch } from './launch.ts';
import { type Message, receive, send } from './messages.ts';

/** A process group whose connections are open; dispose it to leave in peace. */
export interface JoinedProcesses extends ProcessGroup, AsyncDisposable {}

/** How {@link joinProcesses} joins. */
export interface JoinSettings {
  /**
   * Told once when another process ended without leaving, or its machine cannot be reached. Default: exchanges reject.
   * Nothing that waits for a GPU's collective ends by itself after that.
   */
  readonly onLost?: (rank: number) => void;
  /** Milliseconds in which all have to come. Default 5 minutes. */
  readonly patience?: number;
}

/** Between attempts to reach process 0, and between signs of life on a connection where nothing is said. */
const retryAfter = 200;
const keepAlive = 10_000;

/**
 * Finds the other processes: all connect to process 0 and stay connected, so that all learn when one ends.
 * @throws UserError when not all come in time, or one that comes is of another training.
 */
export async function joinProcesses(
  launch: Launch,
  { onLost, patience = 300_000 }: JoinSettings = {},
): Promise<JoinedProcesses> {
  const group = launch.rank === 0 ? new Centre(launch, onLost) : new Member(launch, onLost);
  try {
    await group.open(Date.now() + patience);
  } catch (error) {
    group.close();
    throw error;
  }
  return group;
}

/** What is the same for process 0 and the others. */
abstract class Joined implements JoinedProcesses {
  readonly rank: number;
  readonly world: number;
  protected readonly launch: Launch;
  private readonly onLost: ((rank: number) => void) | undefined;
  private readonly waiting: PromiseWithResolvers<readonly Uint8Array[]>[] = [];
  private lostRank: number | undefined;
  protected isLeaving = false;

  constructor(launch: Launch, onLost: ((rank: number) => void) | undefined) {
    this.launch = launch;
    this.rank = launch.rank;
    this.world = launch.world;
    this.onLost = onLost;
  }

  /** Resolves when all are there. */
  abstract open(deadline: number): Promise<void>;
  /** Ends all connections. */
  abstract close(): void;
  protected abstract give(bytes: Uint8Array): void;
  protected abstract leave(): Promise<void>;

  exchange(bytes: Uint8Array): Promise<readonly Uint8Array[]> {
    const waiting = Promise.withResolvers<readonly Uint8Array[]>();
    this.waiting.push(waiting);
    if (this.lostRank !== undefined) this.refuse(this.lostRank);
    else this.give(bytes);
    return waiting.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isLeaving = true;
    if (this.lostRank === undefined) await this.leave();
    this.close();
  }

  /** Everybody's bytes of the oldest exchange. */
  protected take(all: readonly Uint8Array[]): void {
    this.waiting.shift()?.resolve(all);
  }

  protected lose(rank: number): void {
    if (this.lostRank !== undefined || this.isLeaving) return;
    this.lostRank = rank;
    this.refuse(rank);
    this.onLost?.(rank);
  }

  private refuse(rank: number): void {
    if (this.onLost !== undefined) return;
    for (const { reject } of this.waiting.splice(0)) reject(new UserError(lostMessage(rank)));
  }
}

/** What is said when a process is gone. */
export function lostMessage(rank: number): string {
  return `process ${rank} of the training is gone, so all stop; the same command with --resume goes on from the newest checkpoint`;
}

/** Process 0, to which all others are connected. */
class Centre extends Joined {
  private readonly server: Server = createServer();
  private readonly sockets = new Map<number, Socket>();
  private readonly left = new Set<number>();
  /** What each process gave of the exchanges that are not complete, the oldest first. */
  private readonly given = new Map<number, Uint8Array[]>();
  private wake: () => void = () => undefined;

  async open(deadline: number): Promise<void> {
    const { address, port, world } = this.launch;
    const complete = new Promise<void>((resolve, reject) => {
      this.server.on('error', (error: NodeJS.ErrnoException) =>
        reject(
          new UserError(`port ${port} of ${address}: cannot be listened on (${error.code}); choose another`),
        ),
      );
      this.server.on('connection', (socket) => this.welcome(socket, resolve, reject));
    });
    this.server.listen(port, isLoopback(address) ? address : undefined);
    await withDeadline(complete, deadline, () => {
      const missing = Array.from({ length: world }, (_, rank) => rank).filter(
        (rank) => rank > 0 && !this.sockets.has(rank),
      );
      return `process ${missing.join(', ')} of ${world} did not come; see what they say`;
    });
    this.server.close();
  }

  close(): void {
    this.server.close();
    for (const socket of this.sockets.values()) socket.destroy();
  }

  protected give(bytes: Uint8Array): void {
    this.collect(0, bytes);
  }

  protected async leave(): Promise<void> {
    for (const socket of this.sockets.values()) send(socket, { kind: 'bye' });
    const all = new Promise<void>((resolve) => {
      this.wake = () => {
        if (this.left.size === this.world - 1) resolve();
      };
      this.wake();
    });
    await Promise.race([all, sleep(keepAlive, undefined, { ref: false })]);
  }

  private welcome(socket: Socket, complete: () => void, refuse: (error: Error) => void): void {
    let rank = -1;
    socket.setNoDelay(true).setKeepAlive(true, keepAlive);
    socket.on('error', () => undefined);
    receive(socket, (message) => {
      if (message.kind === 'hello') {
        const isOurs = message.world === this.world && message.rank > 0 && message.rank < this.world;
        if (!isOurs || this.sockets.has(message.rank)) {
          socket.destroy();
          const who = `process ${message.rank} of ${message.world}`;
          refuse(new UserError(`${who} came to a training of ${this.world}, or came twice; start each once`));
          return;
        }
        rank = message.rank;
        this.sockets.set(rank, socket);
        if (this.sockets.size === this.world - 1) complete();
      } else if (rank > 0) this.hear(rank, message);
    });
    socket.on('close', () => {
      if (rank < 0) return;
      if (this.left.has(rank) || this.isLeaving) this.say(rank);
      else {
        for (const other of this.sockets.values()) if (other !== socket) send(other, { kind: 'lost', rank });
        this.lose(rank);
      }
    });
  }

  private hear(rank: number, message: Message): void {
    if (message.kind === 'give') this.collect(rank, message.bytes);
    if (message.kind === 'bye') this.say(rank);
  }

  /** A process left in peace. */
  private say(rank: number): void {
    this.left.add(rank);
    this.wake();
  }

  private collect(rank: number, bytes: Uint8Array): void {
    this.given.set(rank, [...(this.given.get(rank) ?? []), bytes]);
    const all = Array.from({ length: this.world }, (_, one) => this.given.get(one)?.[0]);
    const complete = all.filter((one) => one !== undefined);
    if (complete.length < this.world) return;
    for (const list of this.given.values()) list.shift();
    for (const socket of this.sockets.values()) send(socket, { kind: 'all', bytes: complete });
    this.take(complete);
  }
}

/** A process that is connected to process 0. */
class Member extends Joined {
  private socket: Socket | undefined;
  private isCentreLeaving = false;

  async open(deadline: number): Promise<void> {
    const { address, port, rank, world } = this.launch;
    while (this.socket === undefined) {
      this.socket = await reach(address, port);
      if (this.socket !== undefined) break;
      if (Date.now() > deadline)
        throw new UserError(
          `process ${rank}: process 0 does not answer at ${address}:${port}; see what it says, and whether this machine reaches it`,
        );
      await sleep(retryAfter);
    }
    const { socket } = this;
    socket.setNoDelay(true).setKeepAlive(true, keepAlive);
    socket.on('error', () => undefined);
    receive(socket, (message) => this.hear(message));
    socket.on('close', () => {
      if (!this.isCentreLeaving) this.lose(0);
    });
    send(socket, { kind: 'hello', rank, world });
  }

  close(): void {
    this.socket?.destroy();
  }

  protected give(bytes: Uint8Array): void {
    if (this.socket !== undefined) send(this.socket, { kind: 'give', bytes });
  }

  protected async leave(): Promise<void> {
    const { socket } = this;
    if (socket === undefined || socket.destroyed) return;
    send(socket, { kind: 'bye' });
    await new Promise<void>((resolve) => socket.end(resolve));
  }

  private hear(message: Message): void {
    if (message.kind === 'all') this.take(message.bytes);
    if (message.kind === 'lost') this.lose(message.rank);
    if (message.kind === 'bye') this.isCentreLeaving = true;
  }
}

/** A connection, or undefined when nobody answers. */
function reach(host: string, port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => {
      socket.destroy();
      resolve(undefined);
    });
  });
}

async function withDeadline(work: Promise<void>, deadline: number, message: () => string): Promise<void> {
  const timer = new AbortController();
  const late = sleep(Math.max(0, deadline - Date.now()), undefined, { signal: timer.signal }).then(
    () => {
      throw new UserError(message());
    },
    () => undefined,
  );
  try {
    await Promise.race([work, late]);
  } finally {
    timer.abort();
  }
}

function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || address.startsWith('127.');
}
