import { UserError } from '../../errors.ts';
import { loadFfmpeg } from './ffmpeg.ts';
import { type FrameWriter, writeError } from './frame-writer.ts';
import { GifWriter } from './gif-writer.ts';
import { AnimationWriter, FolderWriter, PictureWriter } from './picture-writers.ts';
import type { CreateAsk } from './protocol.ts';

/** A file being written: pieces of frames in, one frame at a time out to the format's writer. */
export class Writing {
  readonly #ask: CreateAsk;
  readonly #writer: FrameWriter;
  /** The newest frame; how long it stays is known when the next one comes. */
  #held: { pixels: Uint8Array; time: number } | undefined;
  #first: number | undefined;
  #frames = 0;

  private constructor(ask: CreateAsk, writer: FrameWriter) {
    this.#ask = ask;
    this.#writer = writer;
  }

  /** @throws UserError when the format cannot hold such frames or the file cannot be created. */
  static async create(ask: CreateAsk): Promise<Writing> {
    return new Writing(ask, await guarded(ask, () => writerFor(ask)));
  }

  /** @param payload uint8 [timestamps.length, height, width, 3]. @throws UserError when it cannot be written. */
  async add(timestamps: readonly number[], payload: Uint8Array): Promise<void> {
    const bytes = this.#ask.size.width * this.#ask.size.height * 3;
    if (payload.length !== bytes * timestamps.length)
      throw new Error(`add: ${payload.length} bytes of frames`);
    for (const [i, timestamp] of timestamps.entries()) {
      this.#first ??= timestamp;
      const time = timestamp - this.#first;
      if (this.#held && !(time > this.#held.time)) {
        throw new UserError(
          `${this.#ask.name}: frame ${this.#frames} at ${timestamp} s is not after the one before it`,
        );
      }
      await this.#flush(time);
      this.#held = { pixels: payload.subarray(i * bytes, (i + 1) * bytes), time };
      this.#frames++;
    }
  }

  /** Completes the file on disk. @returns the number of frames in it. */
  async finish(): Promise<number> {
    if (!this.#held) throw new UserError(`${this.#ask.name}: no frames to write; give at least one`);
    await this.#flush(this.#held.time + 1 / this.#ask.rate);
    await guarded(this.#ask, () => this.#writer.finish());
    return this.#frames;
  }

  close(): void {
    this.#writer.close();
  }

  async #flush(until: number): Promise<void> {
    const held = this.#held;
    if (held) await guarded(this.#ask, () => this.#writer.add(held.pixels, held.time, until - held.time));
  }
}

async function writerFor(ask: CreateAsk): Promise<FrameWriter> {
  switch (ask.format) {
    case 'mp4':
    case 'webm': {
      const { AvWriter } = await loadFfmpeg();
      return new AvWriter(ask);
    }
    case 'gif':
      return new GifWriter(ask);
    case 'webp':
      return new AnimationWriter(ask);
    case 'png':
    case 'jpeg':
      return new PictureWriter(ask);
    case 'frames':
      return new FolderWriter(ask);
  }
}

async function guarded<T>(ask: CreateAsk, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw writeError(ask.name, error);
  }
}
