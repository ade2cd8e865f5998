/** Steps of a histogram along lightness and along each of the two axes of hue. */
const steps = { lightness: 32, hue: 22 };
/** Width of a cell, in Oklab. */
const cell = 1 / steps.lightness;
const cells = steps.lightness * steps.hue * steps.hue;

/** How often colours occur: counts over cells of Oklab, smoothed, as densities. */
export class ColourHistogram {
  /** Volume of a cell, in Oklab. */
  static readonly cellVolume = cell ** 3;

  #counts: Float32Array = new Float32Array(cells);
  #logs: Float32Array | undefined;

  /** The index of a colour's cell: the same for every histogram. */
  static cellOf(lightness: number, green: number, blue: number): number {
    const l = clampIndex(lightness / cell, steps.lightness);
    const a = clampIndex(green / cell + steps.hue / 2, steps.hue);
    const b = clampIndex(blue / cell + steps.hue / 2, steps.hue);
    return (l * steps.hue + a) * steps.hue + b;
  }

  /** Counts a cell `weight` times. */
  add(index: number, weight = 1): void {
    this.#counts[index] = (this.#counts[index] ?? 0) + weight;
  }

  /** Adds all that another one has counted, `weight` times. */
  addAll(other: ColourHistogram, weight: number): void {
    for (let i = 0; i < cells; i++) {
      this.#counts[i] = (this.#counts[i] ?? 0) + weight * (other.#counts[i] ?? 0);
    }
  }

  /**
   * Ends the counting: smooths the counts `rounds` times with [1 2 1] / 4 along each axis, and mixes in an even spread
   * over all colours with the share `floor`, so that no colour is impossible.
   */
  finish(rounds: number, floor: number): void {
    let smooth: Float32Array = this.#counts;
    for (let round = 0; round < rounds; round++) smooth = smoothed(smooth);
    let total = 0;
    for (let i = 0; i < cells; i++) total += smooth[i] ?? 0;
    const scale = total > 0 ? (1 - floor) / total : 0;
    this.#logs = smooth.map((count) => Math.log(scale * count + floor / plausibleCells));
    this.#counts = new Float32Array(0);
  }

  /** Logarithm of the density of a cell (probability of a cell), after {@link finish}. */
  get logs(): Float32Array {
    if (this.#logs === undefined) throw new RangeError('the histogram is still being counted');
    return this.#logs;
  }
}

/** About as many cells lie inside the sRGB gamut. */
const plausibleCells = 2500;

function clampIndex(value: number, count: number): number {
  const index = Math.floor(value);
  return index < 0 ? 0 : index >= count ? count - 1 : index;
}

function smoothed(counts: Float32Array): Float32Array {
  let values: Float32Array = counts;
  for (const [stride, length] of [
    [1, steps.hue],
    [steps.hue, steps.hue],
    [steps.hue * steps.hue, steps.lightness],
  ] as const) {
    const out = new Float32Array(cells);
    for (let i = 0; i < cells; i++) {
      const value = values[i] ?? 0;
      if (value === 0) continue;
      const place = Math.floor(i / stride) % length;
      out[i] = (out[i] ?? 0) + 0.5 * value;
      const before = place > 0 ? i - stride : i;
      const after = place < length - 1 ? i + stride : i;
      out[before] = (out[before] ?? 0) + 0.25 * value;
      out[after] = (out[after] ?? 0) + 0.25 * value;
    }
    values = out;
  }
  return values;
}
