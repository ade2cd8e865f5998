import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.ts';
import { renderWorld } from '../data/worlds/render.ts';
import { type Camera, motionKinds, type Weather } from '../data/worlds/scene.ts';
import { measureAutoencoder, reconstructed } from '../evaluation/autoencoder-quality.ts';
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
  type SizeReport,
  shapeName,
} from '../evaluation/report.ts';
import { generate } from '../pipeline/generate.ts';
import type { SamplingRequest } from '../pipeline/request.ts';
import type { VideoModel } from '../pipeline/video-model.ts';
import { fold, keyFromSeed } from '../random/philox.ts';
import { joinFrames, type Video } from '../video/frames.ts';
import { encodePng } from '../video/png.ts';
import type { Terminal } from './command.ts';
import { createProgress } from './progress.ts';

/** What can be measured. */
export const parts = ['prompts', 'autoencoder', 'flow'] as const;
/** One of {@link parts}. */
export type Part = (typeof parts)[number];

/** Where the videos of prompts come from. */
export type Source = 'generated' | 'rendered' | 'reconstructed';

/** What is to be measured, and on what. */
export interface EvaluationPlan {
  readonly model: string;
  readonly prompts: number;
  readonly clips: number;
  readonly shapes: readonly ClipShape[];
  readonly seed: number;
  readonly parts: readonly Part[];
  readonly source: Source;
  readonly cameras: readonly Camera['kind'][];
  readonly weathers: readonly Weather[];
  readonly spoiling: Degradation;
  readonly request: SamplingRequest;
  readonly sheets: string | undefined;
}

/** Prompts between two writings of the results, and on a sheet. */
const promptsPerSheet = 20;

/** Measures part by part, size by size, and writes the results as they come. */
export class Evaluation {
  readonly #plan: EvaluationPlan;
  readonly #model: VideoModel | undefined;
  readonly #settings: EvaluationReport['settings'];
  readonly #out: string | undefined;
  readonly #terminal: Terminal;
  readonly #meter = new WorldMeter();

  /**
   * @param model what is measured; undefined where scenes are rendered only.
   * @param settings everything that decides the results.
   * @param out file of results.
   */
  constructor(
    plan: EvaluationPlan,
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

  /**
   * Measures what `earlier` lacks, and prints the table. Returns the exit code: 1 when it was stopped.
   */
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
        this.#terminal.stderr.write(`Stopped${again}\n`);
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
      using progress = this.#progress(`autoencoder ${shapeName(shape)}`, clips, 'clips');
      const hooks = { signal, onProgress: progress.update };
      await save({ autoencoder: await measureAutoencoder(model.codec, shape, { seed, clips }, hooks) });
      progress.finish();
    }
    if (wanted.includes('flow') && model !== undefined && report.flow === undefined) {
      using progress = this.#progress(`flow loss ${shapeName(shape)}`, 10 * clips, 'evaluations');
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
    using progress = this.#progress(`prompts ${shapeName(shape)}`, prompts.length, 'prompts');
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
    const { source, request, seed } = this.#plan;
    const { width, height, frames, rate } = shape;
    const model = this.#model;
    if (model === undefined) return async (asked, index) => this.#render(asked, index, shape);
    if (source === 'reconstructed') {
      return async (asked, index) => await reconstructed(model.codec, this.#render(asked, index, shape));
    }
    return async ({ prompt }, index) => {
      const pieces: Video[] = [];
      const asked = { ...request, prompt, seed: seed + index, size: { width, height }, frames, rate };
      for await (const piece of generate(model, asked, { signal: this.#terminal.signal })) pieces.push(piece);
      return joinFrames(pieces);
    };
  }

  /** The scene of a prompt itself, spoilt as asked for. */
  #render({ scene }: HeldOutPrompt, index: number, { width, height, rate }: ClipShape): Video {
    const { seed, spoiling } = this.#plan;
    const video = renderWorld(scene, { width, height, rate });
    const spoilt = spoiling.blur > 0 || spoiling.noise > 0 || spoiling.halved === true;
    return spoilt ? degraded(video, spoiling, fold(fold(keyFromSeed(seed), 'spoil'), index)) : video;
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
  { seed, prompts, cameras, weathers: skies, source }: EvaluationPlan,
  shape: ClipShape,
): HeldOutPrompt[] {
  // A still shows one moment, at which what blinks may be gone.
  const motions = motionKinds.filter((kind) => shape.frames > 1 || kind !== 'blink');
  const seconds = shape.frames / shape.rate;
  const choices = { cameras, weathers: skies, motions };
  const drawn = heldOutPrompts({ seed, count: prompts, seconds, choices });
  if (source === 'generated') return drawn;
  const says = { place: true, time: true, motion: true, direction: true };
  return drawn.map((asked) => ({ ...asked, says }));
}
