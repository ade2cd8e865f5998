import type { DType } from '../../../tensor/dtype.ts';
import type { Kernel } from '../kernel.ts';
import { storageType } from '../plain/expression.ts';
import { type AttentionContext, gradientCall, type StoredTokens } from './attention.ts';
import { lines } from './conversion-kernels.ts';
import { type LibraryCall, namedScratch } from './library-call.ts';
import type { TokenName } from './token-borders.ts';
import type { AttentionSizes } from './token-layout.ts';

/**
 * Gradients of attention with the queries of each row in equal parts, which cuDNN takes as rows of their own. Each part has a
 * copy of the keys and values, and gives gradients of them that are summed here.
 */
export function gradientByQueries(
  context: AttentionContext,
  sizes: AttentionSizes,
  stored: StoredTokens<TokenName>,
  parts: number,
): LibraryCall {
  const { kernels } = context;
  const { valueStep, ...dense } = sizes;
  const { rows, queries, keys, heads, headSize } = sizes;
  const call = gradientCall(
    context,
    { ...dense, rows: rows * parts, queries: queries / parts },
    { ...stored, k: 'bf16', v: 'bf16', dk: 'bf16', dv: 'bf16' },
  );
  const keyBytes = 2 * rows * parts * keys * heads * headSize;
  const scratch = namedScratch({
    k: keyBytes,
    v: keyBytes,
    dk: keyBytes,
    dv: keyBytes,
    statistics: 4 * rows * heads * queries,
  });
  const statistics = statisticsByParts(sizes, parts);
  const repeat = {
    k: repeatKernel(sizes, parts, stored.k),
    v: repeatKernel(sizes, parts, stored.v, valueStep),
  };
  const sum = { dk: sumKernel(sizes, parts, stored.dk), dv: sumKernel(sizes, parts, stored.dv) };
  return {
    scratch: [...scratch.sizes, ...call.scratch],
    kernels: [statistics, repeat.k, repeat.v, ...call.kernels, sum.dk, sum.dv],
    bind: (addresses) => {
      const [q, k, v, y, logSum, dy] = addresses.inputs as [bigint, bigint, bigint, bigint, bigint, bigint];
      const [dq, dk, dv] = addresses.outputs as [bigint, bigint, bigint];
      const own = scratch.addresses(addresses);
      return [
        kernels.bind(repeat.k, [k, own.k]),
        kernels.bind(repeat.v, [v, own.v]),
        kernels.bind(statistics, [logSum, own.statistics]),
        ...call.bind({
          inputs: [q, own.k, own.v, y, own.statistics, dy],
          outputs: [dq, own.dk, own.dv],
          scratch: addresses.scratch.slice(scratch.sizes.length),
        }),
        kernels.bind(sum.dk, [own.dk, dk]),
        kernels.bind(sum.dv, [own.dv, dv]),
      ];
    },
  };
}

/** Statistics f32 from [rows, heads, queries] to [rows, parts, heads, queries of a part]. */
function statisticsByParts({ rows, queries, heads }: AttentionSizes, parts: number): Kernel {
  const name = `statistics_by_parts_${rows}_${heads}_${queries}_${parts}`;
  const count = rows * heads * queries;
  const length = queries / parts;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const float* __restrict__ x, float* __restrict__ y) {
  long long i = blockIdx.x * 256LL + threadIdx.x;
  if (i >= ${count}LL) return;
  long long query = i % ${queries}, head = (i / ${queries}) % ${heads}, row = i / ${heads * queries}LL;
  y[((row * ${parts} + query / ${length}) * ${heads} + head) * ${length}LL + query % ${length}] = x[i];
}`,
    ...lines(count),
  };
}

/** Each row of keys as often as there are parts, bf16. @param step elements from token to token, where they are read. */
function repeatKernel(
  sizes: AttentionSizes,
  parts: number,
  from: DType,
  step = sizes.heads * sizes.headSize,
): Kernel {
  const { vectors, count } = vectorsOf(sizes);
  const width = sizes.heads * sizes.headSize;
  const name = `repeat_keys_${from}_${count}_${vectors}_${parts}${step === width ? '' : `_${width}_${step}`}`;
  const start = step === width ? '8 * i' : `i / ${width / 8} * ${step}LL + 8 * (i % ${width / 8})`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const ${storageType(from)}* __restrict__ x, bf16* __restrict__ y) {
  long long i = blockIdx.x * 256LL + threadIdx.x;
  if (i >= ${count}LL) return;
  float values[8];
  load8(values, x, ${start});
  long long first = i / ${vectors} * ${parts * vectors}LL + i % ${vectors};
  for (int part = 0; part < ${parts}; part++) store8(y, 8 * (first + part * ${vectors}LL), values);
}`,
    ...lines(count),
  };
}

/** The sum over the parts, which are bf16, of each row of keys. */
function sumKernel(sizes: AttentionSizes, parts: number, to: DType): Kernel {
  const { vectors, count } = vectorsOf(sizes);
  const name = `sum_keys_${to}_${count}_${vectors}_${parts}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const bf16* __restrict__ x, ${storageType(to)}* __restrict__ y) {
  long long i = blockIdx.x * 256LL + threadIdx.x;
  if (i >= ${count}LL) return;
  long long first = i / ${vectors} * ${parts * vectors}LL + i % ${vectors};
  float sum[8] = {}, values[8];
  for (int part = 0; part < ${parts}; part++) {
    load8(values, x, 8 * (first + part * ${vectors}LL));
    for (int j = 0; j < 8; j++) sum[j] += values[j];
  }
  store8(y, 8 * i, sum);
}`,
    ...lines(count),
  };
}

/** Groups of eight channels in a row of keys, and in all rows. */
function vectorsOf({ rows, keys, heads, headSize }: AttentionSizes): { vectors: number; count: number } {
  const vectors = (keys * heads * headSize) / 8;
  return { vectors, count: rows * vectors };
}
