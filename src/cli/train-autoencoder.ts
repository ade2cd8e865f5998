import { join } from 'node:path';
import {
  autoencoderConfigOf,
  autoencoderPlanner,
  autoencoderTraining,
  latentPositions,
} from '../training/autoencoder-task.ts';
import { readAutoencoderRecipe, recipeDigest } from '../training/recipe.ts';
import { formatPlan, planRun } from '../training/run-plan.ts';
import { reconstructionSheet } from '../training/sample-sheet.ts';
import { readStartingWeights } from '../training/starting-weights.ts';
import { writeTrainedAutoencoder } from '../training/trained-models.ts';
import { defineCommand } from './command.ts';
import { checkSharding, commandOf, trainOptions, trainSettings } from './train-options.ts';
import { isFirst, joinOthers, openTrainingExecutor, superviseGpus, terminalOf } from './train-processes.ts';
import { runTraining } from './train-run.ts';

/** `zoetrope train autoencoder`. */
export const trainAutoencoder = defineCommand({
  description: `Train an autoencoder by a recipe. Writes DIR/autoencoder.safetensors when all steps are done, and as it goes
DIR/checkpoints, DIR/metrics.jsonl, DIR/report.html and DIR/samples. Stopped with Ctrl-C or killed, --resume goes on
from the newest checkpoint as if nothing had happened.

Exit code 0: all steps are done. 1: stopped, or the recipe, the folder or a step was at fault.`,
  positionals: [],
  options: trainOptions,
  example: 'zoetrope train autoencoder --recipe recipes/toy/autoencoder.json --out ./run',
  async run({ values, terminal: own }) {
    const settings = trainSettings('zoetrope train autoencoder', values);
    const recipe = await readAutoencoderRecipe(settings.recipe);
    checkSharding(settings, recipe);
    const supervised = await superviseGpus(settings, own);
    if (supervised !== undefined) return supervised;
    await using processes = await joinOthers(settings);
    const terminal = terminalOf(own, processes);
    const config = autoencoderConfigOf(recipe, settings.recipe);
    const model = autoencoderTraining(config, recipe);
    const planner = autoencoderPlanner(config, recipe);
    const parts = settings.isSharded ? settings.allGpus : 1;
    terminal.stderr.write(
      formatPlan(planRun(model, planner, recipe, latentPositions, parts), settings.allGpus),
    );
    const from = settings.from === undefined ? undefined : await readStartingWeights(settings.from, model);
    if (settings.planOnly) return 0;
    await using executor = await openTrainingExecutor(settings, processes);
    const outcome = await runTraining(
      executor,
      settings,
      {
        model,
        recipe,
        planner,
        identity: {
          kind: 'autoencoder',
          recipe: recipeDigest(recipe),
          data: '',
          from: from?.digest ?? '',
        },
        from,
        processes,
        job: { kind: 'autoencoder', config, recipe },
        sample: reconstructionSheet(executor, config, recipe, settings.out),
      },
      terminal,
    );
    if (!outcome.complete) {
      terminal.stderr.write(`Stopped after step ${outcome.step}; the same command with --resume goes on\n`);
      return 1;
    }
    if (!isFirst(processes)) return 0;
    const path = join(settings.out, 'autoencoder.safetensors');
    const command = commandOf('zoetrope train autoencoder', settings);
    const origin = { recipe, file: settings.recipe, command, steps: outcome.step, from: from?.digest };
    await writeTrainedAutoencoder(path, executor, config, outcome.state, origin, settings.threads);
    terminal.stdout.write(`Wrote ${path}\n`);
    return 0;
  },
});
