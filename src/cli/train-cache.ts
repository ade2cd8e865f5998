import { openExecutor } from '../app.ts';
import type { Executor } from '../executors/executor.ts';
import { fillLatentCache } from '../training/fill-cache.ts';
import { readTransformerRecipe, type TransformerRecipe } from '../training/recipe.ts';
import { defineCommand, type Terminal, UsageError } from './command.ts';
import { createProgress } from './progress.ts';
import { trainOptions, trainSettings } from './train-options.ts';

/** `zoetrope train cache`. */
export const trainCache = defineCommand({
  description: `Encode the clips of a transformer's recipe once, with a trained autoencoder, into a folder of latents that
zoetrope train transformer reads with --data. Stopped with Ctrl-C or killed, the same command goes on.

Exit code 0: all clips are there. 1: stopped, or the autoencoder or the folder was at fault.`,
  positionals: [],
  options: {
    recipe: trainOptions.recipe,
    autoencoder: { type: 'string', value: 'FILE', help: 'Trained autoencoder (required)' },
    out: { type: 'string', value: 'DIR', help: 'Folder of the latents, made if missing (required)' },
    device: trainOptions.device,
    precision: trainOptions.precision,
    threads: trainOptions.threads,
  },
  example:
    'zoetrope train cache --recipe recipes/toy/transformer.json --autoencoder run/autoencoder.safetensors --out ./latents',
  async run({ values, terminal }) {
    const { autoencoder } = values;
    const command = 'zoetrope train cache';
    if (autoencoder === undefined) throw new UsageError(`${command}: --autoencoder FILE is missing`);
    const unused = {
      gpus: '1',
      shard: false,
      patience: '5',
      from: undefined,
      resume: false,
      steps: undefined,
      plan: false,
      'dry-run': false,
    };
    const settings = trainSettings(command, { ...values, ...unused });
    const recipe = await readTransformerRecipe(settings.recipe);
    await using executor = await openExecutor(settings.device, settings.deviceOptions);
    const place = { folder: settings.out, autoencoder, threads: settings.threads };
    const complete = await fillWithProgress(executor, recipe, place, terminal);
    if (complete) terminal.stdout.write(`${recipe.data.clips} clips are in ${settings.out}\n`);
    else terminal.stderr.write('Stopped; run the same command again to go on\n');
    return complete ? 0 : 1;
  },
});

/** Fills a latent cache with progress on the terminal; false when it was stopped. */
export async function fillWithProgress(
  executor: Executor,
  { data }: TransformerRecipe,
  place: { readonly folder: string; readonly autoencoder: string; readonly threads: number },
  terminal: Terminal,
): Promise<boolean> {
  using progress = createProgress(terminal, { label: 'encoding', total: data.clips, unit: 'clips' });
  const complete = await fillLatentCache(executor, place.folder, data, place.autoencoder, {
    threads: place.threads,
    signal: terminal.signal,
    onClips: (done) => progress.update(done),
  });
  progress.finish();
  return complete;
}
