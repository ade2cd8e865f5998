import { join } from 'node:path';
import { TrainingSampler } from '../pipeline/training-sampler.ts';
import { readTransformerRecipe, recipeDigest } from '../training/recipe.ts';
import { formatPlan, planRun } from '../training/run-plan.ts';
import { readStartingWeights } from '../training/starting-weights.ts';
import { writeTrainedTransformer } from '../training/trained-models.ts';
import { openTransformerData } from '../training/transformer-data.ts';
import {
  transformerConfigOf,
  transformerPlanner,
  transformerTraining,
  videoTokens,
} from '../training/transformer-task.ts';
import { defineCommand, UsageError } from './command.ts';
import { findAutoencoder, promptSheets, sheetsLine } from './prompt-sheets.ts';
import { fillWithProgress } from './train-cache.ts';
import { checkSharding, commandOf, trainOptions, trainSettings } from './train-options.ts';
import {
  firstDoes,
  isFirst,
  joinOthers,
  openTrainingExecutor,
  superviseGpus,
  terminalOf,
} from './train-processes.ts';
import { runTraining } from './train-run.ts';

/** `zoetrope train transformer`. */
export const trainTransformer = defineCommand({
  description: `Train a transformer by a recipe, on latents that zoetrope train cache made (--data), or that are made first
in DIR/latents (--autoencoder). Writes DIR/transformer.safetensors when all steps are done, and as it goes
DIR/checkpoints, DIR/metrics.jsonl, DIR/report.html and, where the autoencoder is at hand, DIR/samples: videos of
held-out prompts. Stopped with Ctrl-C or killed, --resume goes on from the newest checkpoint as if nothing had happened.

Exit code 0: all steps are done. 1: stopped, or the recipe, the data, the folder or a step was at fault.`,
  positionals: [],
  options: {
    ...trainOptions,
    data: { type: 'string', value: 'DIR', help: 'Latent cache (default: DIR/latents of --out)' },
    autoencoder: {
      type: 'string',
      value: 'FILE',
      help: 'Trained autoencoder, to make the latent cache and sample sheets with',
    },
  },
  example:
    'zoetrope train transformer --recipe recipes/toy/transformer.json --autoencoder run/autoencoder.safetensors --out run2',
  async run({ values, terminal: own }) {
    const settings = trainSettings('zoetrope train transformer', values);
    const { autoencoder } = values;
    const folder = values.data ?? join(settings.out, 'latents');
    if (autoencoder === undefined && values.data === undefined) {
      throw new UsageError('zoetrope train transformer: give --data DIR or --autoencoder FILE');
    }
    const recipe = await readTransformerRecipe(settings.recipe);
    checkSharding(settings, recipe);
    const supervised = await superviseGpus(settings, own);
    if (supervised !== undefined) return supervised;
    await using processes = await joinOthers(settings);
    const terminal = terminalOf(own, processes);
    await using executor = await openTrainingExecutor(settings, processes);
    if (autoencoder !== undefined && !settings.planOnly) {
      const place = { folder, autoencoder, threads: settings.threads };
      const fill = () => fillWithProgress(executor, recipe, place, terminal);
      if (!(await firstDoes(processes, fill))) {
        terminal.stderr.write('Stopped while encoding; run the same command again to go on\n');
        return 1;
      }
    }
    await using data = await openTransformerData(folder, recipe);
    const config = transformerConfigOf(recipe, data.latent, settings.recipe);
    const model = transformerTraining(config);
    const planner = transformerPlanner(config, recipe, data.cache);
    const parts = settings.isSharded ? settings.allGpus : 1;
    terminal.stderr.write(formatPlan(planRun(model, planner, recipe, videoTokens, parts), settings.allGpus));
    const from = settings.from === undefined ? undefined : await readStartingWeights(settings.from, model);
    const autoencoderFile = autoencoder ?? data.cache.autoencoderFile;
    const found = await findAutoencoder(autoencoderFile, data.cache.header.autoencoder);
    terminal.stderr.write(`${sheetsLine(recipe, found)}\n`);
    if (settings.planOnly) return 0;
    await using sampler = 'problem' in found ? undefined : new TrainingSampler(executor, config, found);
    const outcome = await runTraining(
      executor,
      settings,
      {
        model,
        recipe,
        planner,
        identity: {
          kind: 'transformer',
          recipe: recipeDigest(recipe),
          data: data.cache.digest,
          from: from?.digest ?? '',
        },
        from,
        processes,
        job: { kind: 'transformer', config, recipe, cache: folder },
        sample: sampler && promptSheets(sampler, recipe, settings.out, terminal.signal),
      },
      terminal,
    );
    if (!outcome.complete) {
      terminal.stderr.write(`Stopped after step ${outcome.step}; the same command with --resume goes on\n`);
      return 1;
    }
    if (!isFirst(processes)) return 0;
    const path = join(settings.out, 'transformer.safetensors');
    const command = commandOf('zoetrope train transformer', settings);
    const origin = { recipe, file: settings.recipe, command, steps: outcome.step, from: from?.digest };
    await writeTrainedTransformer(path, config, outcome.state, origin, {
      device: executor.name,
      autoencoder: data.cache.header.autoencoder,
    });
    terminal.stdout.write(`Wrote ${path}\n`);
    return 0;
  },
});
