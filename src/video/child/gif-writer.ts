import gifenc from 'gifenc';
import { UserError } from '../../errors.ts';
import { type FrameWriter, OutputFile } from './frame-writer.ts';
import type { CreateAsk } from './protocol.ts';

/** Animated GIF: up to 256 colours for each frame, times in hundredths of a second. */
export class GifWriter implements FrameWriter {
  readonly #ask: CreateAsk;
  readonly #file: OutputFile;
  readonly #encoder = gifenc.GIFEncoder({ auto: false });
  #first = true;

  constructor(ask: CreateAsk) {
    const { width, height } = ask.size;
    if (width > 65535 || height > 65535)
      throw new UserError(`${ask.name}: ${width}x${height} is too large for a GIF`);
    this.#ask = ask;
    this.#file = new OutputFile(ask.path);
    this.#encoder.writeHeader();
  }

  async add(pixels: Uint8Array, time: number, duration: number): Promise<void> {
    // Rounding the moments, not the delays, keeps the whole at its length: 24 a second becomes 4 4 4 5 4 ...
    const delay = Math.round((time + duration) * 100) - Math.round(time * 100);
    if (delay < 2) {
      throw new UserError(
        `${this.#ask.name}: frames ${(duration * 1000).toFixed(0)} ms apart, and a GIF shows at most 50 a second; ` +
          'lower the rate, or write .webp or .mp4',
      );
    }
    const { width, height } = this.#ask.size;
    const rgba = withAlpha(pixels);
    const format = paletteFormat(rgba);
    const palette = gifenc.quantize(rgba, 256, { format });
    const index = gifenc.applyPalette(rgba, palette, format);
    // gifenc counts repetitions after the first showing, and -1 for none.
    const repeat = this.#ask.loop === 0 ? 0 : this.#ask.loop === 1 ? -1 : this.#ask.loop - 1;
    this.#encoder.writeFrame(index, width, height, {
      palette,
      first: this.#first,
      delay: delay * 10,
      repeat,
    });
    this.#first = false;
    this.#drain();
  }

  async finish(): Promise<void> {
    this.#encoder.finish();
    this.#drain();
    this.#file.finish();
  }

  close(): void {
    this.#file.close();
  }

  #drain(): void {
    this.#file.write(this.#encoder.bytesView());
    this.#encoder.stream.reset();
  }
}

/**
 * How finely colours are told apart while choosing the palette. gifenc's time grows with the square of their number: a
 * frame of noise, as an untrained model makes it, would take 6 s instead of 0.2.
 */
function paletteFormat(rgba: Uint8Array): 'rgb565' | 'rgb444' {
  const seen = new Uint8Array(65536);
  let colours = 0;
  for (let at = 0; at < rgba.length; at += 4) {
    const red = (rgba[at] as number) >> 3;
    const green = (rgba[at + 1] as number) >> 2;
    const blue = (rgba[at + 2] as number) >> 3;
    const colour = (red << 11) | (green << 5) | blue;
    if (seen[colour] === 0) colours++;
    seen[colour] = 1;
  }
  return colours > 8192 ? 'rgb444' : 'rgb565';
}

function withAlpha(rgb: Uint8Array): Uint8Array {
  const rgba = new Uint8Array((rgb.length / 3) * 4).fill(255);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from] as number;
    rgba[to + 1] = rgb[from + 1] as number;
    rgba[to + 2] = rgb[from + 2] as number;
  }
  return rgba;
}
