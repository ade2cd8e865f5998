import type { RunHooks } from './progress.ts';
import type { SamplingSettings } from './request.ts';
import { type Passage, sampleLatents } from './sampling.ts';
import type { VideoModel } from './video-model.ts';

/** {@link sampleLatents} of a model, its steps told as progress. */
export async function sampleWatched(
  model: VideoModel,
  passage: Passage,
  settings: SamplingSettings,
  { signal, onProgress }: RunHooks,
): ReturnType<typeof sampleLatents> {
  const onStep = (done: number, total: number) =>
    onProgress?.({ stage: 'sampling', done, total, unit: 'steps' });
  return await sampleLatents(model.field, model.config, passage, settings, { signal, onStep });
}
