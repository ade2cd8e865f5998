import type { Kernel } from '../kernel.ts';

/** Rows of channels, f32 on one side and bf16 on the other, where rows and channels may be padded with zeros. */
export interface PaddedRows {
  readonly rows: number;
  readonly channels: number;
  /** At least `rows`. */
  readonly paddedRows: number;
  /** At least `channels`. */
  readonly paddedChannels: number;
}

const threads = 256;

/** Whether there are zeros around. */
export function isPadded({ rows, channels, paddedRows, paddedChannels }: PaddedRows): boolean {
  return rows !== paddedRows || channels !== paddedChannels;
}

/** f32 or bf16 [rows, channels] to bf16 [paddedRows, paddedChannels], zeros around it. */
export function toBf16Kernel(padding: PaddedRows, from: 'f32' | 'bf16' = 'f32'): Kernel {
  const { rows, channels, paddedRows, paddedChannels } = padding;
  if (from === 'bf16') return paddingKernel(padding);
  const count = paddedRows * paddedChannels;
  const name = `to_bf16_${rows}_${channels}_${paddedRows}_${paddedChannels}`;
  const value = (offset: string) =>
    !isPadded(padding)
      ? `x[i + ${offset}]`
      : `(((i + ${offset}) / ${paddedChannels}) < ${rows}LL && ((i + ${offset}) % ${paddedChannels}) < ${channels}` +
        ` ? x[((i + ${offset}) / ${paddedChannels}) * ${channels}LL + (i + ${offset}) % ${paddedChannels}] : 0.0f)`;
  // Pairs: paddedChannels or the dense count may be odd, so the last element may stand alone.
  return {
    name,
    source: `extern "C" __global__ void ${name}(const float* __restrict__ x, unsigned short* __restrict__ y) {
  long long i = 2 * (blockIdx.x * ${threads}LL + threadIdx.x);
  if (i + 1 < ${count}LL) {
    unsigned int pair;
    float first = ${value('0')}, second = ${value('1')};
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    *(unsigned int*)(y + i) = pair;
  } else if (i < ${count}LL) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y[i]) : "f"(${value('0')}));
  }
}`,
    ...lines(Math.ceil(count / 2)),
  };
}

/** bf16 [rows, channels] with zeros around it. */
function paddingKernel({ rows, channels, paddedRows, paddedChannels }: PaddedRows): Kernel {
  const count = paddedRows * paddedChannels;
  const name = `pad_bf16_${rows}_${channels}_${paddedRows}_${paddedChannels}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const unsigned short* __restrict__ x, unsigned short* __restrict__ y) {
  long long i = blockIdx.x * ${threads}LL + threadIdx.x;
  if (i >= ${count}LL) return;
  long long row = i / ${paddedChannels}, channel = i % ${paddedChannels};
  y[i] = row < ${rows}LL && channel < ${channels} ? x[row * ${channels}LL + channel] : 0;
}`,
    ...lines(count),
  };
}

/** bf16 [paddedRows, paddedChannels] without the zeros around. */
function cuttingKernel({ rows, channels, paddedChannels }: PaddedRows): Kernel {
  const count = rows * channels;
  const name = `cut_bf16_${rows}_${channels}_${paddedChannels}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const unsigned short* __restrict__ x, unsigned short* __restrict__ y) {
  long long i = blockIdx.x * ${threads}LL + threadIdx.x;
  if (i < ${count}LL) y[i] = x[(i / ${channels}) * ${paddedChannels}LL + i % ${channels}];
}`,
    ...lines(count),
  };
}

/** bf16 [paddedRows, paddedChannels] to f32 or bf16 [rows, channels]. */
export function fromBf16Kernel(padding: PaddedRows, to: 'f32' | 'bf16' = 'f32'): Kernel {
  const { rows, channels, paddedChannels } = padding;
  if (to === 'bf16') return cuttingKernel(padding);
  const count = rows * channels;
  const name = `from_bf16_${rows}_${channels}_${paddedChannels}`;
  const dense = channels === paddedChannels;
  const position = dense ? 'i' : `(i / ${channels}) * ${paddedChannels}LL + i % ${channels}`;
  const single = `y[i] = __uint_as_float((unsigned int)x[${position}] << 16);`;
  return {
    name,
    source:
      dense && count % 2 === 0
        ? `extern "C" __global__ void ${name}(const unsigned int* __restrict__ x, float2* __restrict__ y) {
  long long i = blockIdx.x * ${threads}LL + threadIdx.x;
  if (i >= ${count / 2}LL) return;
  unsigned int pair = x[i];
  y[i] = make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}`
        : `extern "C" __global__ void ${name}(const unsigned short* __restrict__ x, float* __restrict__ y) {
  long long i = blockIdx.x * ${threads}LL + threadIdx.x;
  if (i < ${count}LL) ${single}
}`,
    ...lines(dense && count % 2 === 0 ? count / 2 : count),
  };
}

/** A grid of one thread for each of `count` items. */
export function lines(count: number): Pick<Kernel, 'grid' | 'block' | 'sharedBytes'> {
  return { grid: [Math.max(1, Math.ceil(count / threads)), 1, 1], block: [threads, 1, 1], sharedBytes: 0 };
}
