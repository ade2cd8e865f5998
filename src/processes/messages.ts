import type { Socket } from 'node:net';

/** What processes tell each other. */
export type Message =
  /** The first of a connection: who is there. */
  | { readonly kind: 'hello'; readonly rank: number; readonly world: number }
  /** To process 0: this process's bytes. */
  | { readonly kind: 'give'; readonly bytes: Uint8Array }
  /** From process 0: everybody's bytes, by rank. */
  | { readonly kind: 'all'; readonly bytes: readonly Uint8Array[] }
  /** This process ends, and all is well. */
  | { readonly kind: 'bye' }
  /** From process 0: a process ended that did not say bye. */
  | { readonly kind: 'lost'; readonly rank: number };

const kinds = ['hello', 'give', 'all', 'bye', 'lost'] as const;
/** Begins every message, so that what is not one of us is told apart. */
const mark = 0x5a54_5250;
/** Mark, kind, bytes that follow. */
const headerBytes = 12;
/** More than tensors of tests or a communicator's name take. */
const mostBytes = 2 ** 30;

/** Sends a message. */
export function send(socket: Socket, message: Message): void {
  const body = bodyOf(message);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(mark, 0);
  header.writeUInt32LE(kinds.indexOf(message.kind), 4);
  header.writeUInt32LE(body.length, 8);
  socket.write(Buffer.concat([header, body]));
}

/** Calls back for every message that arrives; what is no message ends the connection. */
export function receive(socket: Socket, onMessage: (message: Message) => void): void {
  let pending: Buffer[] = [];
  let size = 0;
  let wanted = headerBytes;
  socket.on('data', (chunk: Buffer) => {
    pending.push(chunk);
    size += chunk.length;
    while (size >= wanted && !socket.destroyed) {
      const all = pending.length === 1 ? (pending[0] ?? chunk) : Buffer.concat(pending);
      const length = all.readUInt32LE(8);
      if (all.readUInt32LE(0) !== mark || length > mostBytes) {
        socket.destroy();
        return;
      }
      wanted = headerBytes + length;
      pending = [all];
      if (size < wanted) return;
      const kind = kinds[all.readUInt32LE(4)];
      const body = all.subarray(headerBytes, wanted);
      pending = [all.subarray(wanted)];
      size -= wanted;
      wanted = headerBytes;
      if (kind === undefined) socket.destroy();
      else onMessage(parsed(kind, body));
    }
  });
}

function bodyOf(message: Message): Buffer {
  switch (message.kind) {
    case 'hello':
      return numbers([message.rank, message.world]);
    case 'lost':
      return numbers([message.rank]);
    case 'give':
      return Buffer.from(message.bytes);
    case 'all':
      return Buffer.concat(message.bytes.flatMap((one) => [numbers([one.length]), one]));
    case 'bye':
      return Buffer.alloc(0);
  }
}

function parsed(kind: Message['kind'], body: Buffer): Message {
  switch (kind) {
    case 'hello':
      return { kind, rank: body.readUInt32LE(0), world: body.readUInt32LE(4) };
    case 'lost':
      return { kind, rank: body.readUInt32LE(0) };
    case 'give':
      return { kind, bytes: new Uint8Array(body) };
    case 'all':
      return { kind, bytes: parts(body) };
    case 'bye':
      return { kind };
  }
}

function parts(body: Buffer): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let start = 0; start < body.length; ) {
    const length = body.readUInt32LE(start);
    found.push(new Uint8Array(body.subarray(start + 4, start + 4 + length)));
    start += 4 + length;
  }
  return found;
}

function numbers(values: readonly number[]): Buffer {
  return Buffer.from(Uint32Array.from(values).buffer);
}
