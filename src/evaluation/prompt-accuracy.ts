import type { Video } from '../video/frames.ts';
import type { MeasureHooks } from './autoencoder-quality.ts';
import type { HeldOutPrompt } from './held-out-prompts.ts';
import type { WorldMeter, WorldSeen } from './measure-world.ts';
import { type Score, scoreOf } from './score.ts';

/** Makes the video of a prompt: a model, or for checking the measurement itself a renderer. */
export type VideoMaker = (asked: HeldOutPrompt, index: number) => Promise<Video>;

/** What came of one prompt. Plain data. */
export interface PromptResult {
  /** Among all prompts. */
  readonly index: number;
  readonly prompt: string;
  readonly seen: WorldSeen;
  readonly score: Score;
}

/** How measuring prompts is watched and stopped. */
export interface PromptHooks extends MeasureHooks {
  /** Given each video with its result, in order. */
  readonly onResult?: ((video: Video, result: PromptResult) => Promise<void>) | undefined;
}

/**
 * Makes the video of each prompt and measures what it shows.
 *
 * @param from index of the first prompt to make; those before it were made earlier.
 * @throws the signal's reason when it is aborted, between two prompts.
 */
export async function measurePrompts(
  prompts: readonly HeldOutPrompt[],
  make: VideoMaker,
  meter: WorldMeter,
  { from = 0 }: { readonly from?: number } = {},
  { signal, onProgress, onResult }: PromptHooks = {},
): Promise<PromptResult[]> {
  const results: PromptResult[] = [];
  for (const [index, asked] of prompts.entries()) {
    if (index < from) continue;
    signal?.throwIfAborted();
    const video = await make(asked, index);
    const seen = meter.measure(video);
    const result = { index, prompt: asked.prompt, seen, score: scoreOf(asked, seen, video.frames) };
    results.push(result);
    await onResult?.(video, result);
    onProgress?.(index + 1);
  }
  return results;
}
