/**
 * RGB to and from I420 in BT.709 limited range: the colours of every file we write. Runs in Node and in browsers, so that
 * both give the same bytes; imports nothing.
 *
 * I420 is three planes one after the other: Y [height, width], then U and V [ceil(height / 2), ceil(width / 2)].
 * Y spans 16..235, U and V 16..240 around 128. Chroma lies at the left of its 2x2 pixels, vertically in the middle: what
 * players assume of H.264 and VP9 that say nothing else.
 */

// ITU-R BT.709: luma weights of red and blue.
const kr = 0.2126;
const kb = 0.0722;
const kg = 1 - kr - kb;
const lumaScale = 219 / 255;
const chromaScale = 224 / 255;

// Fixed point with 16 fractional bits: exact to 1/500 of a level, and integer arithmetic is the same on every machine.
const one = 65536;
const fixed = (value: number): number => Math.round(value * one);

const yFromR = fixed(kr * lumaScale);
const yFromG = fixed(kg * lumaScale);
const yFromB = fixed(kb * lumaScale);
const uFromR = fixed((-kr / (2 * (1 - kb))) * chromaScale);
const uFromB = fixed(0.5 * chromaScale);
const uFromG = -(uFromR + uFromB);
const vFromR = fixed(0.5 * chromaScale);
const vFromB = fixed((-kb / (2 * (1 - kr))) * chromaScale);
const vFromG = -(vFromR + vFromB);

const rgbFromY = fixed(1 / lumaScale);
const rFromV = fixed((2 * (1 - kr)) / chromaScale);
const bFromU = fixed((2 * (1 - kb)) / chromaScale);
const gFromU = fixed((-2 * kb * (1 - kb)) / kg / chromaScale);
const gFromV = fixed((-2 * kr * (1 - kr)) / kg / chromaScale);

/** Bytes of an I420 picture of `width` x `height` pixels. */
export function i420Bytes(width: number, height: number): number {
  return width * height + 2 * Math.ceil(width / 2) * Math.ceil(height / 2);
}

/**
 * Converts one picture to I420.
 *
 * @param rgb uint8 [height, width, channels]; a fourth channel (alpha) is ignored.
 * @param channels 3 or 4, default 3.
 * @returns {@link i420Bytes} bytes.
 */
export function rgbToI420(rgb: Uint8Array, width: number, height: number, channels: 3 | 4 = 3): Uint8Array {
  const out = new Uint8Array(i420Bytes(width, height));
  const half = Math.ceil(width / 2);
  const uStart = width * height;
  const vStart = uStart + half * Math.ceil(height / 2);
  // Sums of red, green and blue over the two rows above each other that share chroma.
  const sums = new Int32Array(width * 3);
  for (let y = 0; y < height; y += 2) {
    sums.fill(0);
    lumaRow(rgb, y * width * channels, channels, out, y * width, width, sums);
    // The last row of an odd height counts twice.
    if (y + 1 < height) lumaRow(rgb, (y + 1) * width * channels, channels, out, (y + 1) * width, width, sums);
    else for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as number) * 2;
    chromaRow(sums, width, out, uStart + (y / 2) * half, vStart + (y / 2) * half);
  }
  return out;
}

function lumaRow(
  rgb: Uint8Array,
  from: number,
  channels: number,
  out: Uint8Array,
  to: number,
  width: number,
  sums: Int32Array,
): void {
  const offset = 16 * one + one / 2;
  for (let x = 0, at = from, s = 0; x < width; x++, at += channels, s += 3) {
    const r = rgb[at] as number;
    const g = rgb[at + 1] as number;
    const b = rgb[at + 2] as number;
    out[to + x] = (yFromR * r + yFromG * g + yFromB * b + offset) >> 16;
    sums[s] = (sums[s] as number) + r;
    sums[s + 1] = (sums[s + 1] as number) + g;
    sums[s + 2] = (sums[s + 2] as number) + b;
  }
}

/** One row of both chroma planes: columns 2x-1, 2x, 2x+1 weighted 1 2 1, so that the sample lies at column 2x. */
function chromaRow(sums: Int32Array, width: number, out: Uint8Array, u: number, v: number): void {
  // Weights 1 2 1 over sums of two rows: eight times a colour. 128 is the zero of chroma.
  const offset = (128 * one + one / 2) * 8;
  for (let x = 0, i = 0; x < width; x += 2, i++) {
    const at = x * 3;
    const left = x > 0 ? at - 3 : at;
    const right = x + 1 < width ? at + 3 : at;
    const r = (sums[left] as number) + 2 * (sums[at] as number) + (sums[right] as number);
    const g = (sums[left + 1] as number) + 2 * (sums[at + 1] as number) + (sums[right + 1] as number);
    const b = (sums[left + 2] as number) + 2 * (sums[at + 2] as number) + (sums[right + 2] as number);
    out[u + i] = (uFromR * r + uFromG * g + uFromB * b + offset) >> 19;
    out[v + i] = (vFromR * r + vFromG * g + vFromB * b + offset) >> 19;
  }
}

/**
 * Converts one I420 picture to RGB; chroma is interpolated linearly between its samples.
 *
 * @param i420 {@link i420Bytes} bytes.
 * @param channels 3 or 4, default 3; a fourth channel becomes 255.
 * @returns uint8 [height, width, channels].
 */
export function i420ToRgb(i420: Uint8Array, width: number, height: number, channels: 3 | 4 = 3): Uint8Array {
  const out = new Uint8Array(width * height * channels);
  const half = Math.ceil(width / 2);
  const rows = Math.ceil(height / 2);
  const uStart = width * height;
  const vStart = uStart + half * rows;
  for (let y = 0; y < height; y++) {
    // Chroma rows lie between pixel rows: three parts of the nearer, one of the farther.
    const near = y >> 1;
    const far = Math.min(rows - 1, Math.max(0, near + (y % 2 === 0 ? -1 : 1)));
    for (let x = 0; x < width; x++) {
      const left = x >> 1;
      const right = x % 2 === 0 ? left : Math.min(half - 1, left + 1);
      const u = chromaAt(i420, uStart, half, near, far, left, right);
      const v = chromaAt(i420, vStart, half, near, far, left, right);
      const luma = rgbFromY * ((i420[y * width + x] as number) - 16) + one / 2;
      const at = (y * width + x) * channels;
      out[at] = clamp((luma + ((rFromV * v) >> 3)) >> 16);
      out[at + 1] = clamp((luma + ((gFromU * u + gFromV * v) >> 3)) >> 16);
      out[at + 2] = clamp((luma + ((bFromU * u) >> 3)) >> 16);
      if (channels === 4) out[at + 3] = 255;
    }
  }
  return out;
}

/** Eight times the chroma value (less its zero) between four samples. */
function chromaAt(
  plane: Uint8Array,
  start: number,
  stride: number,
  near: number,
  far: number,
  left: number,
  right: number,
): number {
  const a =
    (plane[start + near * stride + left] as number) + (plane[start + near * stride + right] as number);
  const b = (plane[start + far * stride + left] as number) + (plane[start + far * stride + right] as number);
  return 3 * a + b - 8 * 128;
}

function clamp(value: number): number {
  return Math.max(0, Math.min(255, value));
}
