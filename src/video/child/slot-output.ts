import { readSync, writeSync } from 'node:fs';

/** Collects the frames of a piece in a slot, or in memory once the slot has no more room. */
export class SlotOutput {
  readonly #file: number;
  #bytes = 0;
  #kept: Uint8Array[] | undefined;

  /** @param file descriptor of the slot; overwritten from its beginning. */
  constructor(file: number) {
    this.#file = file;
  }

  /** Bytes in the slot; null when all are in {@link payload}. */
  get slotBytes(): number | null {
    return this.#kept ? null : this.#bytes;
  }

  /** What is not in the slot. */
  get payload(): readonly Uint8Array[] {
    return this.#kept ?? [];
  }

  /** Adds a copy of `pixels`. */
  put(pixels: Uint8Array): void {
    if (!this.#kept) {
      try {
        for (let done = 0; done < pixels.length; ) {
          done += writeSync(this.#file, pixels, done, pixels.length - done, this.#bytes + done);
        }
        this.#bytes += pixels.length;
        return;
      } catch {
        this.#kept = [this.#takeBack()];
      }
    }
    this.#kept.push(Uint8Array.from(pixels));
  }

  #takeBack(): Uint8Array {
    const data = new Uint8Array(this.#bytes);
    for (let at = 0; at < data.length; ) at += readSync(this.#file, data, at, data.length - at, at);
    return data;
  }
}
