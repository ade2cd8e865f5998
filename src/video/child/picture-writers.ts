import { closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { UserError } from '../../errors.ts';
import { folderIndexName, pictureName } from '../frame-folder.ts';
import { type FrameWriter, OutputFile } from './frame-writer.ts';
import type { CreateAsk } from './protocol.ts';

function picture(pixels: Uint8Array, ask: CreateAsk): Sharp {
  return sharp(pixels, { raw: { ...ask.size, channels: 3 }, limitInputPixels: false });
}

function save(path: string, bytes: Uint8Array): void {
  const file = new OutputFile(path);
  try {
    file.write(bytes);
    file.finish();
  } finally {
    file.close();
  }
}

/** One PNG or JPEG. */
export class PictureWriter implements FrameWriter {
  readonly #ask: CreateAsk;
  #bytes: Uint8Array | undefined;

  constructor(ask: CreateAsk) {
    this.#ask = ask;
  }

  async add(pixels: Uint8Array): Promise<void> {
    const { format, name, quality } = this.#ask;
    if (this.#bytes) {
      throw new UserError(
        `${name}: more than one frame for one ${format}; write .mp4, .gif or a frame folder`,
      );
    }
    const image = picture(pixels, this.#ask);
    // Chroma at full size: a still has no reason to lose it.
    const encoded =
      format === 'png'
        ? image.png()
        : image.jpeg({ quality: Math.max(1, quality), chromaSubsampling: '4:4:4' });
    this.#bytes = await encoded.toBuffer();
  }

  async finish(): Promise<void> {
    if (this.#bytes) save(this.#ask.path, this.#bytes);
  }

  close(): void {
    this.#bytes = undefined;
  }
}

// libvips takes an animation as one tall picture in memory.
const mostAnimationBytes = 768 * 2 ** 20;

/** Animated WebP, or a still one when there is one frame. Times in milliseconds; equal frames in a row become one. */
export class AnimationWriter implements FrameWriter {
  readonly #ask: CreateAsk;
  readonly #frames: Uint8Array[] = [];
  readonly #delays: number[] = [];

  constructor(ask: CreateAsk) {
    const { width, height } = ask.size;
    if (width > 16383 || height > 16383)
      throw new UserError(`${ask.name}: ${width}x${height} is too large for WebP`);
    this.#ask = ask;
  }

  async add(pixels: Uint8Array, time: number, duration: number): Promise<void> {
    if ((this.#frames.length + 1) * pixels.length > mostAnimationBytes) {
      throw new UserError(
        `${this.#ask.name}: more frames than an animated WebP can be made of; write .mp4 or .webm`,
      );
    }
    const delay = Math.round((time + duration) * 1000) - Math.round(time * 1000);
    // Players show a frame of 10 ms or less for 100 ms.
    if (delay <= 10) {
      throw new UserError(
        `${this.#ask.name}: frames ${delay} ms apart, and WebP plays 11 ms or more; lower the rate`,
      );
    }
    this.#frames.push(Uint8Array.from(pixels));
    this.#delays.push(delay);
  }

  async finish(): Promise<void> {
    const { size, quality, loop, path } = this.#ask;
    const { width, height } = size;
    const raw = { width, height: height * this.#frames.length, channels: 3 as const, pageHeight: height };
    const tall = sharp(Buffer.concat(this.#frames.splice(0)), { raw, limitInputPixels: false });
    const options = { quality: Math.max(1, quality), loop, effort: 3, smartSubsample: true };
    save(
      path,
      await tall.webp(this.#delays.length === 1 ? options : { ...options, delay: this.#delays }).toBuffer(),
    );
  }

  close(): void {
    this.#frames.length = 0;
  }
}

/** A folder of numbered PNG files and `frames.json`. */
export class FolderWriter implements FrameWriter {
  readonly #ask: CreateAsk;
  readonly #timestamps: number[] = [];

  constructor(ask: CreateAsk) {
    this.#ask = ask;
    mkdirSync(ask.path);
  }

  async add(pixels: Uint8Array, time: number): Promise<void> {
    save(
      join(this.#ask.path, pictureName(this.#timestamps.length)),
      await picture(pixels, this.#ask).png().toBuffer(),
    );
    this.#timestamps.push(time);
  }

  async finish(): Promise<void> {
    const index = { rate: this.#ask.rate, timestamps: this.#timestamps };
    save(join(this.#ask.path, folderIndexName), Buffer.from(`${JSON.stringify(index)}\n`));
    const folder = openSync(this.#ask.path, 'r');
    fsyncSync(folder);
    closeSync(folder);
  }

  close(): void {}
}
