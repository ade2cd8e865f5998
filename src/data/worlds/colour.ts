/** An sRGB colour: red, green and blue from 0 to 255, not rounded. */
export type Rgb = readonly [red: number, green: number, blue: number];

/** The colour of a hexadecimal code such as `#e0322f`. */
export function hex(code: string): Rgb {
  const value = Number.parseInt(code.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

/** `a` for t = 0, `b` for t = 1, in sRGB. */
export function mixRgb(a: Rgb, b: Rgb, t: number): Rgb {
  return [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t];
}

/** Channel by channel, `factor` as a fraction of 255. */
export function multiplyRgb(a: Rgb, factor: Rgb): Rgb {
  return [(a[0] * factor[0]) / 255, (a[1] * factor[1]) / 255, (a[2] * factor[2]) / 255];
}

/** How different two colours look: the distance in Oklab, 0 to about 1. */
export function oklabDistance(a: Rgb, b: Rgb): number {
  const [l0, a0, b0] = toOklab(a);
  const [l1, a1, b1] = toOklab(b);
  return Math.sqrt((l1 - l0) ** 2 + (a1 - a0) ** 2 + (b1 - b0) ** 2);
}

/** Steps of a {@link gradient}. */
export const gradientSteps = 256;

/**
 * A gradient through colours at places from 0 to 1 in ascending order, mixed in Oklab (Ottosson 2020) so that the way
 * between two hues stays bright; shape [gradientSteps, 3].
 */
export function gradient(stops: readonly (readonly [at: number, colour: Rgb])[]): Float32Array {
  const table = new Float32Array(3 * gradientSteps);
  const first = stops[0];
  if (first === undefined) return table;
  for (let i = 0; i < gradientSteps; i++) {
    const at = i / (gradientSteps - 1);
    let before = first;
    let after = first;
    for (const stop of stops) {
      after = stop;
      if (stop[0] >= at) break;
      before = stop;
    }
    const t = after[0] > before[0] ? (at - before[0]) / (after[0] - before[0]) : 0;
    table.set(mixOklab(before[1], after[1], Math.min(1, t)), 3 * i);
  }
  return table;
}

/** `a` for t = 0, `b` for t = 1, in Oklab. */
export function mixOklab(a: Rgb, b: Rgb, t: number): Rgb {
  return fromOklab(mixRgb(toOklab(a), toOklab(b), t));
}

const linear = (c: number) => {
  const x = c / 255;
  return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
};
const gammaEncode = (x: number) => {
  const y = Math.min(1, Math.max(0, x));
  return 255 * (y <= 0.0031308 ? 12.92 * y : 1.055 * y ** (1 / 2.4) - 0.055);
};

/** sRGB to Oklab (Ottosson 2020): lightness from 0 to 1, then green to red and blue to yellow, each about -0.4 to 0.4. */
export function toOklab(colour: Rgb): Rgb {
  const out: [number, number, number] = [0, 0, 0];
  writeOklab(linear(colour[0]), linear(colour[1]), linear(colour[2]), out, 0);
  return out;
}

/** sRGB pixels of 8 bits to Oklab, three values each. */
export function bytesToOklab(pixels: Uint8Array): Float32Array {
  const out = new Float32Array(pixels.length);
  for (let i = 0; i < pixels.length; i += 3) {
    const r = linearBytes[pixels[i] ?? 0] ?? 0;
    const g = linearBytes[pixels[i + 1] ?? 0] ?? 0;
    writeOklab(r, g, linearBytes[pixels[i + 2] ?? 0] ?? 0, out, i);
  }
  return out;
}

const linearBytes = Float64Array.from({ length: 256 }, (_, c) => linear(c));

/** Linear red, green and blue to Oklab, into `out` from `at` on. */
function writeOklab(r: number, g: number, b: number, out: number[] | Float32Array, at: number): void {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  out[at] = 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s;
  out[at + 1] = 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s;
  out[at + 2] = 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s;
}

/** Undoes {@link toOklab}; colours outside sRGB are clamped channel by channel. */
export function fromOklab(lab: Rgb): Rgb {
  const l = (lab[0] + 0.3963377774 * lab[1] + 0.2158037573 * lab[2]) ** 3;
  const m = (lab[0] - 0.1055613458 * lab[1] - 0.0638541728 * lab[2]) ** 3;
  const s = (lab[0] - 0.0894841775 * lab[1] - 1.291485548 * lab[2]) ** 3;
  return [
    gammaEncode(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    gammaEncode(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    gammaEncode(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}
