/** The part of gifenc that we use; the package has no types of its own. */
declare module 'gifenc' {
  type Palette = number[][];

  interface Encoder {
    writeHeader(): void;
    writeFrame(
      index: Uint8Array,
      width: number,
      height: number,
      options: { palette: Palette; first: boolean; delay: number; repeat: number },
    ): void;
    finish(): void;
    bytesView(): Uint8Array;
    readonly stream: { reset(): void };
  }

  const gifenc: {
    GIFEncoder(options: { auto: false; initialCapacity?: number }): Encoder;
    quantize(rgba: Uint8Array, maxColors: number, options?: { format: 'rgb565' | 'rgb444' }): Palette;
    applyPalette(rgba: Uint8Array, palette: Palette, format?: 'rgb565' | 'rgb444'): Uint8Array;
  };
  export default gifenc;
}
