import type { DType } from '../../../tensor/dtype.ts';
import type { Kernel } from '../kernel.ts';
import { storageType } from '../plain/expression.ts';
import { type AttentionContext, forwardCall, type StoredTokens } from './attention.ts';
import { lines } from './conversion-kernels.ts';
import { type LibraryCall, namedScratch } from './library-call.ts';
import { TokenBorders } from './token-borders.ts';
import type { AttentionSizes } from './token-layout.ts';

const narrow = { q: 'bf16', k: 'bf16', v: 'bf16', y: 'bf16' } as const;

/** Attention to all keys but the `late` last ones, and to those, each by cuDNN, merged by their log-sums. */
export function forwardByKeys(
  context: AttentionContext,
  sizes: AttentionSizes,
  stored: StoredTokens<'q' | 'k' | 'v' | 'y'>,
  late: number,
): LibraryCall {
  const { kernels } = context;
  const { rows, queries, keys, heads, headSize, valueStep = heads * headSize } = sizes;
  const early = keys - late;
  const run = (count: number) => forwardCall(context, { ...sizes, keys: count, keyStep: keys }, narrow);
  const [first, second] = [run(early), run(late)];
  const borders = new TokenBorders(context, sizes, stored);
  const tokens = rows * queries * heads;
  const scratch = namedScratch({
    ...borders.scratch,
    lateY: 2 * tokens * headSize,
    earlySums: 4 * tokens,
    lateSums: 4 * tokens,
  });
  const merge = mergeKernel(sizes, stored.y);
  return {
    scratch: [...scratch.sizes, ...first.scratch, ...second.scratch],
    kernels: [...borders.conversions, ...first.kernels, ...second.kernels, merge],
    bind: (addresses) => {
      const [q, k, v] = addresses.inputs as [bigint, bigint, bigint];
      const [y, logSum] = addresses.outputs as [bigint, bigint];
      const own = scratch.addresses(addresses);
      const places = borders.places({ q, k, v, y }, own);
      const skipped = (width: number) => BigInt(2 * early * width);
      const theirs = addresses.scratch.slice(scratch.sizes.length);
      return [
        ...borders.into('q', q, own.q),
        ...borders.into('k', k, own.k),
        ...borders.into('v', v, own.v),
        ...first.bind({
          inputs: [places.q, places.k, places.v],
          outputs: [places.y, own.earlySums],
          scratch: theirs.slice(0, first.scratch.length),
        }),
        ...second.bind({
          inputs: [places.q, places.k + skipped(heads * headSize), places.v + skipped(valueStep)],
          outputs: [own.lateY, own.lateSums],
          scratch: theirs.slice(first.scratch.length),
        }),
        kernels.bind(merge, [places.y, own.lateY, own.earlySums, own.lateSums, y, logSum]),
      ];
    },
  };
}

/**
 * The attention to two sets of keys from the attention to each: results [rows, queries, heads, channels] in `from`, log-sums
 * f32 [rows, heads, queries]. The result may be made where the first one is. A thread has eight channels of the first half of a
 * head and the eight at the same place in its second half.
 */
export function mergeKernel(
  { rows, queries, heads, headSize }: Pick<AttentionSizes, 'rows' | 'queries' | 'heads' | 'headSize'>,
  to: DType,
  from: 'bf16' | 'f8e4m3' = 'bf16',
): Kernel {
  const lanes = headSize / 16;
  const count = rows * queries * heads * lanes;
  const name = `merge_keys_${from}_${to}_${rows}_${queries}_${heads}_${headSize}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const ${from}* early, const ${from}* __restrict__ late, const float* __restrict__ earlySums, const float* __restrict__ lateSums, ${storageType(to)}* y, float* __restrict__ sums) {
  unsigned i = blockIdx.x * 256u + threadIdx.x;
  if (i >= ${count}u) return;
  unsigned at = i / ${lanes}, lane = i % ${lanes};
  unsigned head = at % ${heads}, query = at / ${heads} % ${queries}, row = at / ${heads * queries}u;
  unsigned place = (row * ${heads} + head) * ${queries}u + query;
  long long start = at * ${headSize}LL + 8 * lane;
  float a[16], b[16];
  for (int half = 0; half < 2; half++) {
    load8(a + 8 * half, early, start + half * ${headSize / 2});
    load8(b + 8 * half, late, start + half * ${headSize / 2});
  }
  float earlySum = earlySums[place], lateSum = lateSums[place];
  float most = larger(earlySum, lateSum);
  float first = expf(earlySum - most), second = expf(lateSum - most), sum = first + second;
  if (lane == 0) sums[place] = most + logf(sum);
  first /= sum;
  second /= sum;
  for (int j = 0; j < 16; j++) a[j] = a[j] * first + b[j] * second;
  for (int half = 0; half < 2; half++) store8(y, start + half * ${headSize / 2}, a + 8 * half);
}`,
    ...lines(count),
  };
}
