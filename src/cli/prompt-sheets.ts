import { existsSync } from 'node:fs';
import { UserError } from '../errors.ts';
import { heldOutPrompts } from '../evaluation/held-out-prompts.ts';
import { ExecutorError } from '../executors/executor.ts';
import { readAutoencoder } from '../pipeline/model-files.ts';
import type { TrainingSampler } from '../pipeline/training-sampler.ts';
import { fileDigest } from '../storage/file-digest.ts';
import type { DeviceState } from '../training/device-state.ts';
import type { TransformerRecipe } from '../training/recipe.ts';
import { writeSheet } from '../training/sample-sheet.ts';
import type { Video } from '../video/frames.ts';

/** Prompts of a sheet, one row each. */
const promptCount = 4;
/** Few: a sheet is to show whether something is learned, not how well it can be sampled. */
const samplingSteps = 16;
/** Of prompts and of noise, the same for every sheet of every training. */
const seed = 1;

/** The autoencoder of a training's latents, or why there is none to decode with. */
export type FoundAutoencoder = Awaited<ReturnType<typeof readAutoencoder>> | { readonly problem: string };

/**
 * Reads the autoencoder of a training's latents.
 * @param digest of the file that the latents were made with.
 * @throws UserError when the file is the right one, but cannot be used.
 */
export async function findAutoencoder(file: string | undefined, digest: string): Promise<FoundAutoencoder> {
  if (file === undefined) return { problem: 'the latent cache does not say where its autoencoder is' };
  if (!existsSync(file)) return { problem: `${file} is gone` };
  if ((await fileDigest(file)) !== digest)
    return { problem: `${file} is not the autoencoder that the latents were made with` };
  return await readAutoencoder(file);
}

/** Says when sample sheets come, or why they do not. */
export function sheetsLine({ intervals, steps }: TransformerRecipe, found: FoundAutoencoder): string {
  if (intervals.sample > steps) return 'No sample sheets: the recipe asks for none before its end';
  if ('problem' in found) return `No sample sheets: ${found.problem}; give --autoencoder FILE`;
  return `Sample sheets every ${intervals.sample} steps: ${promptCount} held-out prompts, ${samplingSteps} steps each`;
}

/**
 * What makes a training's sample sheets: videos that the running average of its weights makes of a few held-out prompts, of
 * the first size of the recipe's that is not a still. A sheet that is stopped, or whose sampling fails, is left out; `note`
 * is told why. Neither ends a training.
 * @param folder of the run.
 */
export function promptSheets(
  sampler: TrainingSampler,
  { data: { variants, rate } }: TransformerRecipe,
  folder: string,
  signal: AbortSignal,
): (state: DeviceState, step: number, note: (text: string) => void) => Promise<void> {
  const variant = variants.find(({ frames }) => frames > 1) ?? variants[0];
  if (variant === undefined) throw new Error('a recipe without sizes');
  const seconds = variant.frames / rate;
  const prompts = heldOutPrompts({ seed, count: promptCount, seconds }).map(({ prompt }) => prompt);
  return async (state, step, note) => {
    try {
      const rows: Video[] = [];
      for (const prompt of prompts) {
        const request = { prompt, seed, steps: samplingSteps };
        rows.push(await sampler.video(state.buffers.average, request, { ...variant, rate }, signal));
      }
      await writeSheet(folder, step, rows, prompts);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof UserError || error instanceof ExecutorError)) throw error;
      note(`No sample sheet of step ${step}: ${error.message}`);
    }
  };
}
