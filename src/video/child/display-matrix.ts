/** How a decoded picture is to be turned for display: first mirrored left to right, then turned clockwise. */
export interface Orientation {
  readonly rotation: 0 | 90 | 180 | 270;
  readonly mirrored: boolean;
}

/**
 * Reads the display matrix of MP4 and QuickTime: nine 32-bit numbers `a b u c d v x y w`, of which `a b c d` in 16.16
 * fixed point say where the picture's axes go: (x, y) -> (a x + c y, b x + d y) with y pointing down. Quarter turns and
 * mirrorings are exact; other angles are rounded to the next quarter turn.
 *
 * @param matrix 36 bytes in the machine's byte order, as FFmpeg gives them; null for an upright picture.
 */
export function orientation(matrix: Uint8Array | null): Orientation {
  if (!matrix || matrix.byteLength < 36) return { rotation: 0, mirrored: false };
  const view = new DataView(matrix.buffer, matrix.byteOffset, 36);
  const entry = (index: number): number => view.getInt32(index * 4, true) / 65536;
  const [a, b, c, d] = [entry(0), entry(1), entry(3), entry(4)];
  const mirrored = a * d - b * c < 0;
  // Mirroring left to right negates the image of the x axis; undone, what is left is a pure turn.
  const angle = (Math.atan2(mirrored ? -b : b, mirrored ? -a : a) * 180) / Math.PI;
  const quarter = ((Math.round(angle / 90) % 4) + 4) % 4;
  return { rotation: ([0, 90, 180, 270] as const)[quarter] ?? 0, mirrored };
}
