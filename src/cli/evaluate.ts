import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadModel, modelFolder } from '../app.ts';
import { checkWritable, writeFileAtomic } from '../atomic-file.ts';
import { renderWorld } from '../data/worlds/render.ts';
import { type Camera, cameraKinds, motionKinds, type Weather, weathers } from '../data/worlds/scene.ts';
import { measureAutoencoder } from '../evaluation/autoencoder-quality.ts';
import { type Degradation, degraded } from '../evaluation/degrade.ts';
import { measureFlowLoss } from '../evaluation/flow-loss.ts';
import type { ClipShape } from '../evaluation/held-out-clips.ts';
import { type HeldOutPrompt, heldOutPrompts } from '../evaluation/held-out-prompts.ts';
import { WorldMeter } from '../evaluation/measure-world.ts';
import { measurePrompts, type PromptResult, type VideoMaker } from '../evaluation/prompt-accuracy.ts';
import { promptSheet, sheetText } from '../evaluation/prompt-sheet.ts';
import {
  type EvaluationReport,
  reportFormat,
  reportJson,
  reportTable,
  resumedReport,
  type SizeReport,
  shapeName,
} from '../evaluation/report.ts';
import { generate, planGeneration } from '../pipeline/generate.ts';
import type { SamplingRequest } from '../pipeline/request.ts';
import type { VideoModel } from '../pipeline/video-model.ts';
import { fold, keyFromSeed } from '../random/philox.ts';
import { fileDigest } from '../storage/file-digest.ts';
import { joinFrames, type Video } from '../video/frames.ts';
import { encodePng } from '../video/png.ts';
import { defineCommand, numberOption, suggestion, type Terminal, UsageError } from './command.ts';
import { createProgress } from './progress.ts';
import {
  asUsage,
  deviceChoice,
  samplingOptions,
  samplingRequest,
  threadsOption,
} from './sampling-options.ts';

/** What can be measured. */
const parts = ['prompts', 'autoencoder', 'flow'] as const;
type Part = (typeof parts)[number];

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
    const plan: Plan = {
      model: values.model,
      prompts: numberOption('prompts', values.prompts, { min: 1, max: 100_000, integer: true }),
      clips: numberOption('clips', values.clips, { min: 1, max: 100_000, integer: true }),
      shapes: shapesOption(values.size, values.frames, values.fps),
      seed: numberOption('seed', values.seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }),
      parts: values.rendered ? ['prompts'] : wanted,
      rendered: values.rendered,
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
    const options = { device: deviceChoice(values.device), ...threadsOption(values.threads) };
    await using model = plan.rendered ? undefined : await loadModel(values.model, options);
    if (model !== undefined) checkShapes(model, plan);
    const settings = { ...settingsOf(plan), ...(model && (await modelSettings(plan, model))) };
    const earlier = values.out === undefined ? undefined : await readEarlier(values.out, settings);
    return await new Evaluation(plan, model, settings, values.out, terminal).run(earlier);
  },
});

interface Plan {
  readonly model: string;
  readonly prompts: number;
  readonly clips: number;
  readonly shapes: readonly ClipShape[];
  readonly seed: number;
  readonly parts: readonly Part[];
  readonly rendered: boolean;
  readonly cameras: readonly Camera['kind'][];
  readonly weathers: readonly Weather[];
  readonly spoiling: Degradation;
  readonly request: SamplingRequest;
  readonly sheets: string | undefined;
}

/** Prompts between two writings of the results, and on a sheet. */
const promptsPerSheet = 20;

/** Measures part by part, size by size, and writes the results as they come. */
class Evaluation {
  readonly #plan: Plan;
  readonly #model: VideoModel | undefined;
  readonly #settings: EvaluationReport['settings'];
  readonly #out: string | undefined;
  readonly #terminal: Terminal;
  readonly #meter = new WorldMeter();

  constructor(
    plan: Plan,
    model: VideoModel | undefined,
    settings: EvaluationReport['settings'],
    out: string | undefined,
    terminal: Terminal,
  ) {
    this.#plan = plan;
    this.#model = model;
    this.#settings = settings;
    this.#out = out;
    this.#terminal = terminal;
  }

  async run(earlier: EvaluationReport | undefined): Promise<number> {
    const reports = this.#plan.shapes.map(
      (shape): SizeReport =>
        earlier?.sizes.find((known) => shapeName(known.shape) === shapeName(shape)) ?? { shape },
    );
    for (const [i, report] of reports.entries()) {
      const save = async (part: Partial<SizeReport>) => {
        reports[i] = { ...(reports[i] ?? report), ...part };
        await this.#write(reports);
      };
      try {
        await this.#measure(report, save);
      } catch (error) {
        if (!this.#terminal.signal.aborted) throw error;
        const again = this.#out === undefined ? '' : '; the same command goes on from there';
        this.#terminal.stderr.write(`\nStopped${again}\n`);
        this.#terminal.stdout.write(reportTable(this.#report(reports)));
        return 1;
      }
    }
    this.#terminal.stdout.write(reportTable(this.#report(reports)));
    return 0;
  }

  async #measure(report: SizeReport, save: (part: Partial<SizeReport>) => Promise<void>): Promise<void> {
    const { parts: wanted, seed, clips } = this.#plan;
    const { shape } = report;
    const model = this.#model;
    const { signal } = this.#terminal;
    if (wanted.includes('autoencoder') && model !== undefined && report.autoencoder === undefined) {
      const progress = this.#progress(`autoencoder ${shapeName(shape)}`, clips, 'clips');
      const hooks = { signal, onProgress: progress.update };
      await save({ autoencoder: await measureAutoencoder(model.codec, shape, { seed, clips }, hooks) });
      progress.finish();
    }
    if (wanted.includes('flow') && model !== undefined && report.flow === undefined) {
      const progress = this.#progress(`flow loss ${shapeName(shape)}`, 10 * clips, 'evaluations');
      const hooks = { signal, onProgress: progress.update };
      await save({ flow: await measureFlowLoss(model, shape, { seed, clips }, hooks) });
      progress.finish();
    }
    if (wanted.includes('prompts')) await this.#measurePrompts(report, save);
  }

  async #measurePrompts(
    { shape, prompts: earlier = [] }: SizeReport,
    save: (part: Partial<SizeReport>) => Promise<void>,
  ): Promise<void> {
    const prompts = promptsOf(this.#plan, shape);
    const progress = this.#progress(`prompts ${shapeName(shape)}`, prompts.length, 'prompts');
    const results = [...earlier];
    let rows: { readonly video: Video; readonly result: PromptResult }[] = [];
    const keep = async () => {
      await save({ prompts: results.slice() });
      await this.#writeSheet(shape, rows);
      rows = [];
    };
    const onResult = async (video: Video, result: PromptResult) => {
      results.push(result);
      rows.push({ video, result });
      if (results.length % promptsPerSheet === 0) await keep();
    };
    const { signal } = this.#terminal;
    const hooks = { signal, onProgress: progress.update, onResult };
    try {
      await measurePrompts(prompts, this.#maker(shape), this.#meter, { from: earlier.length }, hooks);
    } finally {
      if (rows.length > 0) await keep();
    }
    progress.finish();
  }

  #maker(shape: ClipShape): VideoMaker {
    const { seed, spoiling, request } = this.#plan;
    const { width, height, frames, rate } = shape;
    const model = this.#model;
    if (model === undefined) {
      return async ({ scene }, index) => {
        const video = renderWorld(scene, { width, height, rate });
        const spoilt = spoiling.blur > 0 || spoiling.noise > 0 || spoiling.halved === true;
        return spoilt ? degraded(video, spoiling, fold(fold(keyFromSeed(seed), 'spoil'), index)) : video;
      };
    }
    return async ({ prompt }, index) => {
      const pieces: Video[] = [];
      const asked = { ...request, prompt, seed: seed + index, size: { width, height }, frames, rate };
      for await (const piece of generate(model, asked, { signal: this.#terminal.signal })) pieces.push(piece);
      return joinFrames(pieces);
    };
  }

  async #writeSheet(
    shape: ClipShape,
    rows: readonly { readonly video: Video; readonly result: PromptResult }[],
  ): Promise<void> {
    const { sheets } = this.#plan;
    const [first] = rows;
    if (sheets === undefined || first === undefined) return;
    const name = join(sheets, `${shapeName(shape)}-${String(first.result.index).padStart(4, '0')}`);
    await writeFileAtomic(`${name}.png`, encodePng(promptSheet(rows)));
    await writeFileAtomic(`${name}.txt`, sheetText(rows.map(({ result }) => result)));
  }

  #progress(label: string, total: number, unit: string) {
    return createProgress(this.#terminal, { label, total, unit });
  }

  #report(sizes: readonly SizeReport[]): EvaluationReport {
    return { format: reportFormat, settings: this.#settings, sizes };
  }

  async #write(sizes: readonly SizeReport[]): Promise<void> {
    if (this.#out !== undefined) await writeFileAtomic(this.#out, reportJson(this.#report(sizes)));
  }
}

/** The prompts of a size; of rendered scenes everything is asked, whether the prompt says it or not. */
function promptsOf(
  { seed, prompts, cameras, weathers: skies, rendered }: Plan,
  shape: ClipShape,
): HeldOutPrompt[] {
  // A still shows one moment, at which what blinks may be gone.
  const motions = motionKinds.filter((kind) => shape.frames > 1 || kind !== 'blink');
  const seconds = shape.frames / shape.rate;
  const choices = { cameras, weathers: skies, motions };
  const drawn = heldOutPrompts({ seed, count: prompts, seconds, choices });
  if (!rendered) return drawn;
  const says = { place: true, time: true, motion: true, direction: true };
  return drawn.map((asked) => ({ ...asked, says }));
}

/** What decides the results, as the file of results keeps it. */
function settingsOf({
  prompts,
  clips,
  seed,
  parts: wanted,
  cameras,
  weathers: skies,
  rendered,
  spoiling,
}: Plan) {
  const common = { prompts, clips, seed, parts: wanted, cameras, weathers: skies };
  return rendered ? { ...common, rendered: spoiling } : common;
}

async function modelSettings({ model: name, request }: Plan, model: VideoModel) {
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

function checkShapes(model: VideoModel, { shapes, request }: Plan): void {
  for (const { width, height, frames, rate } of shapes) {
    asUsage(() => planGeneration(model, { ...request, seed: 0, size: { width, height }, frames, rate }));
  }
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
