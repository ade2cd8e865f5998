/** A connected stretch of pixels in one frame. */
export interface Region {
  /** Indices of its pixels, row * width + column. */
  readonly pixels: Int32Array;
  /** Sum of the evidence over its pixels. */
  readonly gain: number;
}

/**
 * The connected regions (diagonals count) where evidence, averaged over 3x3 pixels, is above 0, by falling gain.
 *
 * @param evidence of one frame, [height, width].
 * @param least fewest pixels of a region.
 */
export function regionsOf(evidence: Float32Array, width: number, height: number, least: number): Region[] {
  const smooth = boxAverage(evidence, width, height);
  const seen = new Uint8Array(width * height);
  const stack = new Int32Array(width * height);
  const regions: Region[] = [];
  for (let start = 0; start < seen.length; start++) {
    if (seen[start] === 1 || (smooth[start] ?? 0) <= 0) continue;
    let depth = 0;
    stack[depth++] = start;
    seen[start] = 1;
    const pixels: number[] = [];
    let gain = 0;
    while (depth > 0) {
      const pixel = stack[--depth] ?? 0;
      pixels.push(pixel);
      gain += evidence[pixel] ?? 0;
      const x = pixel % width;
      const y = (pixel - x) / width;
      for (let j = Math.max(0, y - 1); j <= Math.min(height - 1, y + 1); j++) {
        for (let i = Math.max(0, x - 1); i <= Math.min(width - 1, x + 1); i++) {
          const next = j * width + i;
          if (seen[next] === 1 || (smooth[next] ?? 0) <= 0) continue;
          seen[next] = 1;
          stack[depth++] = next;
        }
      }
    }
    if (pixels.length >= least) regions.push({ pixels: Int32Array.from(pixels), gain });
  }
  return regions.sort((a, b) => b.gain - a.gain);
}

/** Means over 3x3 pixels; at the edges over what there is. */
function boxAverage(values: Float32Array, width: number, height: number): Float32Array {
  const out = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      let count = 0;
      for (let j = Math.max(0, y - 1); j <= Math.min(height - 1, y + 1); j++) {
        for (let i = Math.max(0, x - 1); i <= Math.min(width - 1, x + 1); i++) {
          sum += values[j * width + i] ?? 0;
          count++;
        }
      }
      out[y * width + x] = sum / count;
    }
  }
  return out;
}
