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

// How far the step of `rgbToNearestI420` goes: 1.5 over the sum of squares of a chroma sample's effect on the pixels
// around it once luma has taken up what it can. A larger step overshoots on flat colours.
const nearestStep = { u: 1.5 / (4 * 4.5), v: 1.5 / (4 * 3.5) };

/**
 * Converts one picture to the I420 that {@link i420ToRgb} turns back into nearly the nearest RGB: at the edges of
 * saturated colours about 2 dB nearer than {@link rgbToI420}, because luma makes up for what chroma at half size cannot
 * show ("sharp YUV"). Flat colours come back within 2 levels. Takes 8 times as long: 50 ms for 1280x720 on one EPYC core.
 *
 * One step of gradient descent on chroma from what {@link rgbToI420} gives, with the best luma for every pixel before
 * and after: the mean over red, green and blue of what chroma leaves.
 *
 * @param rgb uint8 [height, width, 3].
 * @returns {@link i420Bytes} bytes.
 */
export function rgbToNearestI420(rgb: Uint8Array, width: number, height: number): Uint8Array {
  const i420 = rgbToI420(rgb, width, height);
  const half = Math.ceil(width / 2);
  const rows = Math.ceil(height / 2);
  const vFrom = half * rows;
  const chroma = i420.subarray(width * height);
  const steps = chromaSteps(rgb, chroma, width, height);
  for (let i = 0; i < vFrom; i++) {
    chroma[i] = chromaLevel((chroma[i] as number) + nearestStep.u * (steps[i] as number));
    chroma[vFrom + i] = chromaLevel(
      (chroma[vFrom + i] as number) + nearestStep.v * (steps[vFrom + i] as number),
    );
  }
  forEachPixel(chroma, width, height, (pixel, u, v) => {
    const at = 3 * pixel;
    const left =
      (rgb[at] as number) + (rgb[at + 1] as number) + (rgb[at + 2] as number) - uToAll * u - vToAll * v;
    i420[pixel] = 16.5 + lumaScale * Math.max(0, Math.min(255, left / 3));
  });
  return i420;
}

const uToG = gFromU / one;
const uToB = bFromU / one;
const vToR = rFromV / one;
const vToG = gFromV / one;
const uToAll = uToG + uToB;
const vToAll = vToR + vToG;

/** For every sample of both chroma planes, the direction in which the squared error of RGB falls. */
function chromaSteps(rgb: Uint8Array, chroma: Uint8Array, width: number, height: number): Float32Array {
  const steps = new Float32Array(chroma.length);
  const vFrom = chroma.length / 2;
  forEachPixel(chroma, width, height, (pixel, u, v, nearLeft, nearRight, farLeft, farRight) => {
    const at = 3 * pixel;
    const r = (rgb[at] as number) - vToR * v;
    const g = (rgb[at + 1] as number) - uToG * u - vToG * v;
    const b = (rgb[at + 2] as number) - uToB * u;
    const luma = (r + g + b) / 3;
    const du = (uToG * (g - luma) + uToB * (b - luma)) / 8;
    const dv = (vToR * (r - luma) + vToG * (g - luma)) / 8;
    steps[nearLeft] = (steps[nearLeft] as number) + 3 * du;
    steps[nearRight] = (steps[nearRight] as number) + 3 * du;
    steps[farLeft] = (steps[farLeft] as number) + du;
    steps[farRight] = (steps[farRight] as number) + du;
    steps[vFrom + nearLeft] = (steps[vFrom + nearLeft] as number) + 3 * dv;
    steps[vFrom + nearRight] = (steps[vFrom + nearRight] as number) + 3 * dv;
    steps[vFrom + farLeft] = (steps[vFrom + farLeft] as number) + dv;
    steps[vFrom + farRight] = (steps[vFrom + farRight] as number) + dv;
  });
  return steps;
}

/** Calls `visit` with every pixel's interpolated chroma (less its zero) and the samples it lies between. */
function forEachPixel(
  chroma: Uint8Array,
  width: number,
  height: number,
  visit: (
    pixel: number,
    u: number,
    v: number,
    nearLeft: number,
    nearRight: number,
    farLeft: number,
    farRight: number,
  ) => void,
): void {
  const half = Math.ceil(width / 2);
  const rows = Math.ceil(height / 2);
  const vStart = half * rows;
  for (let y = 0; y < height; y++) {
    const near = y >> 1;
    const far = Math.min(rows - 1, Math.max(0, near + (y % 2 === 0 ? -1 : 1)));
    for (let x = 0; x < width; x++) {
      const left = x >> 1;
      const right = x % 2 === 0 ? left : Math.min(half - 1, left + 1);
      const u = chromaAt(chroma, 0, half, near, far, left, right) / 8;
      const v = chromaAt(chroma, vStart, half, near, far, left, right) / 8;
      const n = near * half;
      const f = far * half;
      visit(y * width + x, u, v, n + left, n + right, f + left, f + right);
    }
  }
}

function chromaLevel(value: number): number {
  return Math.round(Math.max(16, Math.min(240, value)));
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
