/**
 * The media child process: everything that touches FFmpeg or libvips with a file in hand runs here, so that a file that
 * crashes or hangs them costs only this process. `protocol.ts` says what it is asked.
 */
import { readSync, writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { UserError } from '../../errors.ts';
import {
  type AnswerHeader,
  type AskHeader,
  type CreateAsk,
  decodePrefix,
  encodeHead,
  type OpenAsk,
  prefixBytes,
  type Slot,
  slotFiles,
} from './protocol.ts';
import { Reading } from './reading.ts';
import { SlotOutput } from './slot-output.ts';
import { Writing } from './writing.ts';

interface Answer {
  readonly answer: object;
  readonly payload?: readonly Uint8Array[];
}

let reading: Reading | undefined;
let writing: Writing | undefined;

async function answer({ call, ask }: AskHeader, payload: Uint8Array): Promise<Answer> {
  switch (call) {
    case 'open':
      reading = await Reading.open(ask as OpenAsk);
      return { answer: reading.opened };
    case 'next':
      if (!reading) throw new Error('next: nothing is open');
      return await nextPiece(reading, (ask as { slot: Slot }).slot);
    case 'create':
      writing = await Writing.create(ask as CreateAsk);
      return { answer: {} };
    case 'add':
      if (!writing) throw new Error('add: nothing is being written');
      await writing.add((ask as { timestamps: number[] }).timestamps, payload);
      return { answer: {} };
    case 'finish':
      if (!writing) throw new Error('finish: nothing is being written');
      return { answer: { frames: await writing.finish() } };
    case 'close':
      await reading?.close();
      writing?.close();
      reading = undefined;
      writing = undefined;
      return { answer: {} };
  }
}

async function nextPiece(open: Reading, slot: Slot): Promise<Answer> {
  const output = new SlotOutput(slotFiles[slot]);
  const piece = await open.next((pixels) => output.put(pixels));
  return { answer: { ...piece, slotBytes: output.slotBytes }, payload: output.payload };
}

/** Fills `bytes` from standard input. @returns false when the parent has gone. */
function readFully(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; ) {
    const got = retry(() => readSync(0, bytes, at, bytes.length - at, null));
    if (got === 0) return false;
    at += got;
  }
  return true;
}

function writeFully(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += retry(() => writeSync(1, bytes, at, bytes.length - at));
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Some systems hand out pipes that do not block; then wait a little and try again. */
function retry(operation: () => number): number {
  for (;;) {
    try {
      return operation();
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EOF') return 0;
      if (code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}

function send(result: Pick<AnswerHeader, 'answer' | 'error'>, payload: readonly Uint8Array[]): void {
  const bytes = payload.reduce((sum, part) => sum + part.length, 0);
  writeFully(encodeHead({ resident: process.memoryUsage.rss(), ...result }, bytes));
  for (const part of payload) writeFully(part);
}

const prefix = Buffer.alloc(prefixBytes);
while (readFully(prefix)) {
  const lengths = decodePrefix(prefix);
  const header = Buffer.alloc(lengths.header);
  const payload = Buffer.alloc(lengths.payload);
  if (!(readFully(header) && readFully(payload))) break;
  try {
    const done = await answer(JSON.parse(header.toString()) as AskHeader, payload);
    send({ answer: done.answer }, done.payload ?? []);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    send({ error: { message, user: error instanceof UserError } }, []);
  }
  // All else here is synchronous, and native objects are only let go when the event loop turns.
  await setImmediate();
}
