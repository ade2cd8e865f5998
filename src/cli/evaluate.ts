import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadModel, modelFolder } from '../app.ts';
import { checkWritable } from '../atomic-file.ts';
import { cameraKinds, weathers } from '../data/worlds/scene.ts';
import type { ClipShape } from '../evaluation/held-out-clips.ts';
import { type EvaluationReport, resumedReport } from '../evaluation/report.ts';
import { planGeneration } from '../pipeline/generate.ts';
import type { VideoModel } from '../pipeline/video-model.ts';
import { fileDigest } from '../storage/file-digest.ts';
import { defineCommand, numberOption, suggestion, UsageError } from './command.ts';
import { Evaluation, type EvaluationPlan, parts, type Source } from './evaluation-run.ts';
import { asUsage, loadOptions, samplingOptions, samplingRequest } from './sampling-options.ts';

const {
  out: _out,
  plan: _plan,
  'dry-run': _dryRun,
  negative: _negative,
  seed: _seed,
  ...sampling
} = samplingOptions;

/** `zoetrope evaluate`: how well a model does what prompts say, measured in pixels. */
export const evaluateCommand = defineCommand({
  description: `Measure a model trained on worlds. It is given prompts whose combinations of shape, colour, motion and place
were kept from training, and what its videos show is measured in their pixels, without a network: colour, shape,
motion, background, time of day, number of objects. Its autoencoder is given held-out clips (PSNR, SSIM, flicker), its
transformer held-out latents (flow loss by timestep). Prints a table with 95% confidence intervals.

--rendered measures the measurement: scenes are rendered rather than generated, so that all should be right.
--reconstructed sends them through the model's autoencoder too: no transformer can do better than that.

Stopped with Ctrl-C, the same command with the same --out goes on where it was.

Exit code 0: all was measured. 1: stopped, or the model, the device or a place was at fault.`,
  positionals: [],
  options: {
    ...sampling,
    prompts: { type: 'string', value: 'N', help: 'Number of prompts at each size', default: '200' },
    clips: { type: 'string', value: 'N', help: 'Number of clips for autoencoder and flow', default: '32' },
    size: {
      type: 'string',
      value: 'WxH[xF],…',
      help: 'Sizes, each with its own number of frames if it has one',
      default: '64x64',
    },
    frames: {
      type: 'string',
      value: 'N',
      help: 'Frames of sizes without their own; 1: stills',
      default: '25',
    },
    fps: { type: 'string', value: 'N', help: 'Frames a second', default: '12' },
    seed: { type: 'string', value: 'N', help: 'Decides prompts, noise and clips', default: '0' },
    only: { type: 'string', value: 'PART,…', help: `Of ${parts.join(', ')} (default: all)` },
    out: { type: 'string', value: 'FILE', short: 'o', help: 'Results as JSON' },
    sheets: { type: 'string', value: 'DIR', help: 'Write sheets of frames, 20 prompts each, to look at' },
    rendered: { type: 'boolean', help: 'Render the scenes of the prompts instead of asking a model' },
    reconstructed: { type: 'boolean', help: 'Render them, then encode and decode them' },
    camera: {
      type: 'string',
      value: 'KIND,…',
      help: `Cameras of prompts, of ${cameraKinds.join(', ')}`,
      default: 'still',
    },
    weather: {
      type: 'string',
      value: 'KIND,…',
      help: `Weathers of prompts, of ${weathers.join(', ')}`,
      default: 'clear',
    },
    blur: { type: 'string', value: 'X', help: 'Blur rendered frames, in pixels', default: '0' },
    noise: { type: 'string', value: 'X', help: 'Noise on rendered frames, of 255', default: '0' },
    halved: { type: 'boolean', help: 'Send rendered frames through half their size' },
  },
  example: 'zoetrope evaluate --model micro --prompts 200 --size 64x64,96x64,64x112 --out evaluation.json',
  async run({ values, terminal }) {
    const wanted = chosen('only', values.only ?? parts.join(), parts);
    const source = sourceOption(values);
    const plan: EvaluationPlan = {
      model: values.model,
      prompts: numberOption('prompts', values.prompts, { min: 1, max: 100_000, integer: true }),
      clips: numberOption('clips', values.clips, { min: 1, max: 100_000, integer: true }),
      shapes: shapesOption(values.size, values.frames, values.fps),
      seed: numberOption('seed', values.seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }),
      parts: source === 'generated' ? wanted : ['prompts'],
      source,
      cameras: chosen('camera', values.camera, cameraKinds),
      weathers: chosen('weather', values.weather, weathers),
      spoiling: {
        blur: numberOption('blur', values.blur, { min: 0, max: 20 }),
        noise: numberOption('noise', values.noise, { min: 0, max: 255 }),
        halved: values.halved,
      },
      request: samplingRequest('', { ...values, negative: undefined, seed: undefined }),
      sheets: values.sheets,
    };
    if (values.out !== undefined) await checkWritable(values.out);
    if (values.sheets !== undefined) await mkdir(values.sheets, { recursive: true });
    const options = loadOptions(values);
    await using model =
      source === 'rendered' ? undefined : await asUsage(() => loadModel(values.model, options));
    if (model !== undefined) await checkShapes(model, plan);
    const settings = { ...settingsOf(plan), ...(model && (await modelSettings(plan, model))) };
    const earlier = values.out === undefined ? undefined : await readEarlier(values.out, settings);
    return await new Evaluation(plan, model, settings, values.out, terminal).run(earlier);
  },
});

/** What decides the results, as the file of results keeps it. */
function settingsOf({
  prompts,
  clips,
  seed,
  parts: wanted,
  cameras,
  weathers: skies,
  source,
  spoiling,
}: EvaluationPlan) {
  const common = { source, prompts, clips, seed, parts: wanted, cameras, weathers: skies };
  return source === 'generated' ? common : { ...common, spoiling };
}

async function modelSettings({ model: name, request }: EvaluationPlan, model: VideoModel) {
  const { prompt: _prompt, ...sampled } = request;
  const folder = modelFolder(name);
  const [autoencoder, transformer] = await Promise.all(
    ['autoencoder', 'transformer'].map((kind) => fileDigest(join(folder, `${kind}.safetensors`))),
  );
  return { model: name, autoencoder, transformer, executor: model.executor.name, sampling: sampled };
}

async function readEarlier(
  path: string,
  settings: EvaluationReport['settings'],
): Promise<EvaluationReport | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : resumedReport(text, settings);
}

async function checkShapes(model: VideoModel, { shapes, request }: EvaluationPlan): Promise<void> {
  for (const { width, height, frames, rate } of shapes) {
    const asked = { ...request, seed: 0, size: { width, height }, frames, rate };
    await asUsage(() => planGeneration(model, asked));
  }
}

function sourceOption(values: { readonly rendered: boolean; readonly reconstructed: boolean }): Source {
  if (values.reconstructed) return 'reconstructed';
  return values.rendered ? 'rendered' : 'generated';
}

function shapesOption(sizes: string, frames: string, fps: string): ClipShape[] {
  const rate = numberOption('fps', fps, { min: 0.1, max: 1000 });
  const usual = numberOption('frames', frames, { min: 1, max: 100_000, integer: true });
  return sizes.split(',').map((text) => {
    const [, width, height, own] = /^(\d{1,4})x(\d{1,4})(?:x(\d{1,5}))?$/.exec(text.trim()) ?? [];
    const shape = { width: Number(width), height: Number(height), frames: Number(own ?? usual), rate };
    const fits = [shape.width, shape.height].every((side) => side >= 16) && shape.frames >= 1;
    if (fits) return shape;
    throw new UsageError(
      `zoetrope: --size must be WIDTHxHEIGHT or WIDTHxHEIGHTxFRAMES, at least 16 pixels, such as 64x64, got '${text}'`,
    );
  });
}

/** Reads a list of names. @throws UsageError for one that there is not. */
function chosen<T extends string>(option: string, text: string, names: readonly T[]): T[] {
  return text.split(',').map((word) => {
    const found = names.find((name) => name === word.trim());
    if (found !== undefined) return found;
    throw new UsageError(
      `zoetrope: --${option} must be of ${names.join(', ')}, got '${word}'${suggestion(word, names)}`,
    );
  });
}
