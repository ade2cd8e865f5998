import type { CachedCaptions } from '../data/latent-cache.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { at } from '../tensor/shape.ts';
import type { Batch, BatchPlan } from './batch.ts';
import type { BatchPool } from './batch-pool.ts';
import type { LatentEncoder } from './latent-encoder.ts';
import type { WorldsData } from './recipe.ts';
import { videoOf } from './world-batches.ts';
import { drawVariant, variantName } from './world-clips.ts';

/** A world as its latents. */
export interface EncodedWorld {
  /** Number of the clip, which is the number of its world too. */
  readonly index: number;
  /** Not normalised, f32 [T', H', W', C]. */
  readonly latents: HostTensor<'f32'>;
  readonly captions: CachedCaptions;
  /** How much of each latent position objects cover, f32 [T', H', W'], where the pool's job asks for it. */
  readonly coverage?: HostTensor<'f32'> | undefined;
}

const encodedAtOnce = 8;

/**
 * Encodes clips `first` to `first + count` of a recipe's worlds, which size each has being drawn by the variants'
 * weights. They come in groups of one size, so not in order.
 * @param pool of the job `worlds` with the same data.
 */
export async function* encodeWorlds(
  encoder: LatentEncoder,
  pool: BatchPool,
  data: WorldsData,
  first: number,
  count: number,
): AsyncGenerator<EncodedWorld> {
  const plans = groupPlans(data, first, count);
  const coming: { indices: readonly number[]; batch: Promise<Batch> }[] = [];
  let next = 0;
  while (next < plans.length || coming.length > 0) {
    for (; coming.length < pool.ahead && next < plans.length; next++) {
      const { plan, indices } = at(plans, next);
      const batch = pool.make(plan);
      // A failure is met where the batch is awaited.
      batch.catch(() => undefined);
      coming.push({ indices, batch });
    }
    const group = coming.shift();
    if (group === undefined) return;
    const { values, captions = [], coverage } = await group.batch;
    const latents = await encoder.encode(videoOf(values));
    for (const [i, index] of group.indices.entries()) {
      yield { index, latents: at(latents, i), captions: at(captions, i), coverage: coverage?.[i] };
    }
  }
}

/** Groups of {@link encodedAtOnce} clips of one size; a group that is not full repeats its last clip to have that size. */
function groupPlans(
  data: WorldsData,
  first: number,
  count: number,
): { readonly plan: BatchPlan; readonly indices: readonly number[] }[] {
  const byVariant = new Map<number, number[]>();
  for (let index = first; index < first + count; index++) {
    const variant = drawVariant(data.variants, data.seed, 'clip variant', index);
    byVariant.set(variant, [...(byVariant.get(variant) ?? []), index]);
  }
  return [...byVariant].flatMap(([variant, indices]) =>
    Array.from({ length: Math.ceil(indices.length / encodedAtOnce) }, (_, group) => {
      const own = indices.slice(group * encodedAtOnce, (group + 1) * encodedAtOnce);
      const clips = Array.from({ length: encodedAtOnce }, (_, i) => [own[i] ?? own.at(-1) ?? 0]);
      return {
        plan: { step: 0, number: 0, variant: variantName(at(data.variants, variant)), clips },
        indices: own,
      };
    }),
  );
}
