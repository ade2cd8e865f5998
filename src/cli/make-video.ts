import { loadModel } from '../app.ts';
import { checkWritable } from '../atomic-file.ts';
import type { Estimate } from '../pipeline/estimate.ts';
import type { RunHooks } from '../pipeline/progress.ts';
import type { Extent, SamplingSettings } from '../pipeline/request.ts';
import type { VideoModel } from '../pipeline/video-model.ts';
import { isFfmpegFormat, requireFfmpeg } from '../video/ffmpeg-package.ts';
import { formatNames, formatOf } from '../video/formats.ts';
import type { Video } from '../video/frames.ts';
import { MediaReader } from '../video/read.ts';
import { writeVideo } from '../video/write.ts';
import { type Terminal, UsageError } from './command.ts';
import { formatSeconds } from './progress.ts';
import { asUsage, type DeviceValues, loadOptions } from './sampling-options.ts';
import { stageProgress } from './stage-progress.ts';

/** Values that every command which makes a video has. */
export interface MakeValues extends DeviceValues {
  readonly out: string | undefined;
  readonly model: string;
  readonly plan: boolean;
  readonly 'dry-run': boolean;
}

/** A video that is ready to be made. */
export interface PreparedVideo {
  readonly settings: SamplingSettings;
  readonly extent: Extent;
  readonly estimate: Estimate;
  /** Lines for the user: what is done to files that were given. */
  readonly notes: readonly string[];
  frames(hooks: RunHooks): AsyncIterable<Video>;
}

/** What preparing may use. */
export interface Workshop {
  readonly model: VideoModel;
  readonly reader: MediaReader;
  readonly terminal: Terminal;
}

/**
 * Runs a command that makes a video: checks the place, loads the model, lets the command prepare, prints the plan or
 * makes it. Everything that can be refused is refused before the first step is computed.
 * @param command how it is called, for messages.
 */
export async function makeVideo(
  command: string,
  values: MakeValues,
  terminal: Terminal,
  prepare: (workshop: Workshop) => Promise<PreparedVideo>,
): Promise<number> {
  const planOnly = values.plan || values['dry-run'];
  const options = loadOptions(values);
  const out = await checkedOut(command, values.out, planOnly);
  await using model = await asUsage(() => loadModel(values.model, options));
  await using reader = new MediaReader();
  const prepared = await prepare({ model, reader, terminal });
  if (out !== undefined) checkFormat(out, prepared.extent);
  for (const line of prepared.notes) note(terminal, line);
  if (planOnly || out === undefined) {
    terminal.stdout.write(planText(prepared, await deviceText(model)));
    return 0;
  }
  const { settings, extent } = prepared;
  note(terminal, `${extentText(extent)}, ${settings.steps} steps, seed ${settings.seed}`);
  using stages = stageProgress(terminal);
  const { onProgress } = stages;
  const started = performance.now();
  const { frames } = await writeVideo(prepared.frames({ signal: terminal.signal, onProgress }), out);
  stages.finish();
  const fallback = await model.executor.fallback?.();
  if (fallback !== undefined) note(terminal, `${model.executor.name} ${fallback}`);
  const seconds = formatSeconds((performance.now() - started) / 1000);
  const count = frames === 1 ? '1 frame' : `${frames} frames`;
  terminal.stdout.write(`Wrote ${out}: ${count}, seed ${settings.seed}, in ${seconds}\n`);
  return 0;
}

/** A line for the user beside the result. */
export function note({ stderr }: Terminal, text: string): void {
  stderr.write(stderr.isTTY === true ? `${text}\n` : `${JSON.stringify({ event: 'note', text })}\n`);
}

/** Whether a file of this name holds a single frame. */
export function isStillFormat(out: string | undefined): boolean {
  const format = out === undefined ? undefined : formatOf(out);
  return format === 'png' || format === 'jpeg';
}

/**
 * Checks a place for a result.
 * @throws UsageError when its ending is of no format, UserError when nothing can be written there.
 */
export async function checkPlace(path: string): Promise<void> {
  const format = formatOf(path);
  if (format === undefined) {
    throw new UsageError(`zoetrope: ${path}: no format has this ending; use one of ${formatNames}`);
  }
  if (isFfmpegFormat(format)) requireFfmpeg(path);
  // A folder of frames is checked when it is written: it may replace another one.
  if (format !== 'frames') await checkWritable(path);
}

async function checkedOut(
  command: string,
  out: string | undefined,
  planOnly: boolean,
): Promise<string | undefined> {
  if (out !== undefined) await checkPlace(out);
  else if (!planOnly) throw new UsageError(`${command}: --out FILE is missing; see ${command} --help`);
  return out;
}

/**
 * Checks that a file's format can hold what is to be made.
 * @throws UsageError for several frames in a format of one.
 */
export function checkFormat(out: string, { frames }: Extent): void {
  if (frames > 1 && isStillFormat(out)) {
    throw new UsageError(
      `zoetrope: ${out}: holds one frame, not ${frames}; use --frames 1 or another ending`,
    );
  }
}

/** What runs a model, and what it falls back to. */
async function deviceText({ executor }: VideoModel): Promise<string> {
  const fallback = await executor.fallback?.();
  return fallback === undefined ? executor.name : `${executor.name} ${fallback}`;
}

function planText({ settings, extent, estimate }: PreparedVideo, device: string): string {
  const { steps, sampler, guidance, seed } = settings;
  const { evaluations, corrections } = estimate;
  const corrected = corrections === 0 ? '' : `, ${corrections} corrected`;
  const rows: [string, string][] = [
    ['video', extentText(extent)],
    ['tokens', `${estimate.videoTokens} video (${estimate.grid.join('x')}), ${estimate.textTokens} text`],
    [
      'sampling',
      `${steps} steps of ${sampler}${corrected}, guidance ${guidance}: ${evaluations} evaluations`,
    ],
    ['seed', `${seed}`],
    ['memory', `about ${Math.ceil(estimate.memory / 1e7) * 10} MB`],
    ['time', `about ${formatSeconds(Math.ceil(estimate.seconds))} on ${device}`],
  ];
  return rows.map(([name, value]) => `${name.padEnd(10)}${value}\n`).join('');
}

function extentText({ width, height, frames, rate }: Extent): string {
  if (frames === 1) return `${width}x${height}, a still`;
  return `${width}x${height}, ${frames} frames at ${rate} a second (${(frames / rate).toFixed(1)} s)`;
}
