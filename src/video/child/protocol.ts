import type { WriteFormat } from '../formats.ts';
import type { Size } from '../frames.ts';
import type { MediaInfo } from '../media-info.ts';
import type { ReadReport } from '../read-types.ts';

/**
 * What the parent and a media child process say to each other.
 *
 * The parent asks on the child's standard input, the child answers on its standard output: exactly one answer per
 * question, in order. The parent may have several questions under way; that is how it has the next piece decoded while
 * it uses the last one. A message is
 *
 *     u32 LE  bytes of header        u32 LE  bytes of payload        header (JSON)        payload
 *
 * A payload is frames, uint8 [frames, height, width, 3]. Frames that were read do not go through the pipe, which would
 * cost the parent's main thread a copy in small parts, but through two nameless files in memory, the slots: the child
 * has them open as {@link slotFiles} and fills one while the parent reads the other. The child reads and writes synchronously, so a parent that does
 * not read stops it, and a parent that goes away ends it.
 */
export interface Calls {
  /** Opens a file or frame folder for reading; `close` must follow, also after a failure. */
  open: { ask: OpenAsk; answer: OpenAnswer };
  /**
   * The next piece of the open file: in the slot named, or as payload where the slot cannot be written.
   * After `report` came, no more may be asked.
   */
  next: { ask: { slot: Slot }; answer: NextAnswer };
  /** Ends reading or writing and frees what it held; harmless when nothing is open. */
  close: { ask: object; answer: object };
  /** Begins writing a file. */
  create: { ask: CreateAsk; answer: object };
  /** Adds frames; payload in the question. */
  add: { ask: { timestamps: number[] }; answer: object };
  /** Completes the file and flushes it to disk. */
  finish: { ask: object; answer: { frames: number } };
}

/** Reading options with every default filled in. */
export interface OpenAsk {
  readonly path: string;
  readonly start: number;
  readonly end: number | null;
  readonly maxFrames: number | null;
  readonly rate: number | null;
  readonly size: Size | null;
  readonly maxSide: number | null;
  readonly fit: 'stretch' | 'cover';
  readonly background: readonly [number, number, number];
  /** Whether the report lists the times of all frames decoded. */
  readonly reportTimes: boolean;
  /** Most pixels of a coded frame. */
  readonly pixels: number;
  /** Threads the decoder may use. */
  readonly threads: number;
  /** Most bytes of frames in one piece; one frame may be more. */
  readonly pieceBytes: number;
}

/** Answer to `open`: `size` and `rate` hold for all the frames that follow. */
export interface OpenAnswer {
  readonly info: MediaInfo;
  readonly size: Size;
  readonly rate: number;
}

/** One of the two places in which the child puts frames. */
export type Slot = 0 | 1;

/** File descriptors of the slots in the child. */
export const slotFiles = [3, 4] as const;

/** Answer to `next`: the frames' timestamps, and with the last piece (possibly empty) the report. */
export interface NextAnswer {
  readonly timestamps: readonly number[];
  readonly report: ReadReport | null;
  /** Bytes of frames at the beginning of the slot; null when they are the payload. */
  readonly slotBytes: number | null;
}

/** What to write, with every default filled in. */
export interface CreateAsk {
  /** The temporary file or folder to fill. */
  readonly path: string;
  /** The name to use in messages. */
  readonly name: string;
  readonly format: WriteFormat;
  /** Size of the frames that will come. */
  readonly size: Size;
  readonly rate: number;
  readonly quality: number;
  readonly oddSize: 'error' | 'crop' | 'pad';
  readonly loop: number;
  readonly threads: number;
}

/** Header of a question. */
export interface AskHeader {
  readonly call: keyof Calls;
  readonly ask: object;
}

/** Header of an answer: exactly one of `answer` and `error` is set. `user` tells a {@link UserError} from a bug. */
export interface AnswerHeader {
  /** Bytes of the child's resident memory when it answered. */
  readonly resident: number;
  readonly answer?: object;
  readonly error?: { readonly message: string; readonly user: boolean };
}

/** Bytes before the header: the two lengths. */
export const prefixBytes = 8;

/** Largest payload either side accepts, 1 GiB: more than a frame of the most pixels allowed takes. */
export const maxPayload = 2 ** 30;

/** The prefix and header of a message whose payload has `payloadBytes`; the payload is written after it as it is. */
export function encodeHead(header: AskHeader | AnswerHeader, payloadBytes: number): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.allocUnsafe(prefixBytes + json.length);
  head.writeUInt32LE(json.length, 0);
  head.writeUInt32LE(payloadBytes, 4);
  json.copy(head, prefixBytes);
  return head;
}

/** The two lengths of a message. @throws Error when they cannot be right, so that a broken peer cannot ask for memory. */
export function decodePrefix(prefix: Buffer): { header: number; payload: number } {
  const header = prefix.readUInt32LE(0);
  const payload = prefix.readUInt32LE(4);
  if (header > 2 ** 28 || payload > maxPayload)
    throw new Error(`message of ${header} and ${payload} bytes: too long`);
  return { header, payload };
}

/** Puts messages together from the pieces in which a pipe gives them; copies each payload once. */
export class MessageAssembler {
  #part = Buffer.allocUnsafe(prefixBytes);
  #filled = 0;
  #stage: 'prefix' | 'header' | 'payload' = 'prefix';
  #payloadBytes = 0;
  #header: unknown;
  readonly #deliver: (header: unknown, payload: Uint8Array) => void;

  constructor(deliver: (header: unknown, payload: Uint8Array) => void) {
    this.#deliver = deliver;
  }

  /** Takes the next bytes and delivers the messages they complete. */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      const taken = bytes.copy(this.#part, this.#filled, at);
      at += taken;
      this.#filled += taken;
      while (this.#filled === this.#part.length && this.#advance());
    }
  }

  /** Handles the completed part. @returns whether the part begun now may be complete already (an empty payload). */
  #advance(): boolean {
    const done = this.#part;
    if (this.#stage === 'prefix') {
      const lengths = decodePrefix(done);
      this.#payloadBytes = lengths.payload;
      this.#begin('header', lengths.header);
    } else if (this.#stage === 'header') {
      this.#header = JSON.parse(done.toString());
      this.#begin('payload', this.#payloadBytes);
    } else {
      this.#begin('prefix', prefixBytes);
      this.#deliver(this.#header, new Uint8Array(done.buffer, done.byteOffset, done.length));
    }
    return this.#part.length === 0;
  }

  #begin(stage: 'prefix' | 'header' | 'payload', bytes: number): void {
    this.#stage = stage;
    this.#part = stage === 'payload' ? Buffer.from(new ArrayBuffer(bytes)) : Buffer.allocUnsafe(bytes);
    this.#filled = 0;
  }
}
