import { evaluationsOf } from '../diffusion/samplers.ts';
import { timestepSchedule, timestepShift } from '../diffusion/timesteps.ts';
import type { Executor } from '../executors/executor.ts';
import { type LatentShape, latentShapeOf } from '../models/latent-spec.ts';
import { latentPositions, type TimeHeightWidth } from '../models/transformer/config.ts';
import { gridOf } from '../models/transformer/patches.ts';
import { videoTokensOf } from '../models/transformer/sequence.ts';
import { at } from '../tensor/shape.ts';
import type { Size } from '../video/frames.ts';
import { correctionsOf } from './correction.ts';
import type { EditPlan } from './edit.ts';
import type { GenerationPlan } from './generate.ts';
import { framesToPutBack } from './put-back.ts';
import type { SamplingSettings } from './request.ts';
import { stepsOfRun } from './sampling.ts';
import type { VideoModel } from './video-model.ts';

/** What a plan will cost, about. */
export interface Estimate {
  /** Patches along each axis of what is sampled at full size. */
  readonly grid: TimeHeightWidth;
  readonly videoTokens: number;
  /** Of the prompt. */
  readonly textTokens: number;
  /** Evaluations of the velocity, both prompts, a preview's and those of corrections included. */
  readonly evaluations: number;
  /** How often an edit is corrected while it is sampled. */
  readonly corrections: number;
  /** Bytes of memory at its highest, weights and the process that writes the file included. */
  readonly memory: number;
  /** Time on the model's device. */
  readonly seconds: number;
}

/** The cost of a generation. */
export function estimateGeneration(model: VideoModel, plan: GenerationPlan): Estimate {
  const { settings, extent, from, preview } = plan;
  // What does not begin at noise begins at a video that is encoded.
  const pass = (size: Size, begin: number): Pass => ({
    shape: latentShapeOf(model.latent, extent.frames, size),
    from: begin,
    decoded: extent.frames,
    encoded: begin < 1 ? extent.frames : 0,
    size,
  });
  const full = pass(extent, from);
  return estimate(model, settings, preview === undefined ? [full] : [full, pass(preview, preview.from)]);
}

/** The cost of an edit. */
export function estimateEdit(model: VideoModel, { settings, extent, layout }: EditPlan): Estimate {
  const [, height, width, channels] = latentShapeOf(model.latent, 1, extent);
  const shape: LatentShape = [layout.latentFrames, height, width, channels];
  // What is encoded beside the known groups is about as much again.
  const encoded = (layout.before?.frames ?? 0) + 8 * (layout.after?.groups ?? 0);
  const corrected = framesToPutBack(model.codec, layout);
  return estimate(model, settings, [
    { shape, from: 1, decoded: layout.to, encoded, size: extent, corrected },
  ]);
}

/** One sampling with what goes in and comes out. */
interface Pass {
  readonly shape: LatentShape;
  readonly from: number;
  /** Frames. */
  readonly decoded: number;
  readonly encoded?: number;
  readonly size: Size;
  /** Frames that are decoded and encoded for each correction; left out when it is not corrected. */
  readonly corrected?: { readonly decoded: number; readonly encoded: number };
}

function estimate(
  model: VideoModel,
  settings: SamplingSettings,
  passes: readonly [Pass, ...Pass[]],
): Estimate {
  let [operations, evaluations, corrections, peak, held] = [0, 0, 0, 0, 0];
  const gridOfPass = ({ shape }: Pass) => gridOf(model.config, [shape[0], shape[1], shape[2]]);
  for (const pass of passes) {
    const grid = gridOfPass(pass);
    const positions = latentPositions(model.config, videoTokensOf(grid));
    const run = runOf(settings, positions, pass);
    const step = model.field.costOf(settings.prompt, grid);
    const decoding = model.codec.costOf('decode', pass.size);
    const encoding = model.codec.costOf('encode', pass.size);
    const frames = (once: number | undefined, again: number | undefined) =>
      (once ?? 0) + run.corrections * (again ?? 0);
    const encoded = frames(pass.encoded, pass.corrected?.encoded);
    evaluations += run.evaluations;
    corrections += run.corrections;
    operations += run.evaluations * step.operations;
    operations += frames(pass.decoded, pass.corrected?.decoded) * decoding.operations;
    operations += encoded * encoding.operations;
    // One after the other, in the same memory: an edit's encoder runs between the steps.
    const coding = Math.max(decoding.peakBytes, encoded > 0 ? encoding.peakBytes : 0);
    peak = Math.max(peak, step.peakBytes, framesAtOnce * coding);
    held = Math.max(held, run.corrections > 0 ? bytesPutBack(pass) : 0);
  }
  const grid = gridOfPass(passes[0]);
  return {
    grid,
    videoTokens: videoTokensOf(grid),
    textTokens: model.field.textTokensOf(settings.prompt),
    evaluations,
    corrections,
    memory: baseBytes + weightCopies * model.weightBytes + peakSlack * peak + held,
    seconds: startSeconds + operations / operationsPerSecond(model.executor),
  };
}

/** Frames that a correction holds to encode them: as they were decoded, and joined. */
function bytesPutBack({ corrected, size }: Pass): number {
  return 2 * (corrected?.encoded ?? 0) * size.width * size.height * 3;
}

/** What a sampling from timestep `from` asks for. */
interface Run {
  /** Of the velocity: two where guidance acts. */
  readonly evaluations: number;
  /** How often the sampling is corrected. */
  readonly corrections: number;
}

function runOf(settings: SamplingSettings, positions: number, { from, corrected }: Pass): Run {
  const shift = timestepShift(positions);
  const steps = stepsOfRun(settings.steps, shift, from);
  if (steps === 0) return { evaluations: 0, corrections: 0 };
  const schedule = timestepSchedule(steps, shift, from);
  const corrections =
    corrected === undefined ? [] : correctionsOf(schedule).map((index) => at(schedule, index));
  const [low, high] = settings.guidanceInterval;
  const guided = (timesteps: readonly number[]) =>
    settings.guidance === 1 ? 0 : timesteps.filter((t) => t > 0 && t >= low && t <= high).length;
  const once = evaluationsOf(settings.sampler, steps);
  const sampling = once + Math.round((once * guided(schedule)) / steps);
  return {
    evaluations: sampling + corrections.length + guided(corrections),
    corrections: corrections.length,
  };
}

/** Frames that the decoder has in work, or the encoder: a latent frame's. */
const framesAtOnce = 4;

// Measured with micro on two cores: the processes that compute and that write the file, what is kept twice, what
// allocators keep beyond need, starting and compiling.
const baseBytes = 425e6;
const weightCopies = 2;
const peakSlack = 5;
const startSeconds = 1.5;

/** What devices do in a second, in practice: of the CPU measured, of the others a guess from their class. */
function operationsPerSecond({ name, threads = navigator.hardwareConcurrency }: Executor): number {
  if (name.startsWith('onnx cpu')) return 35e9 * Math.min(threads, navigator.hardwareConcurrency);
  if (name.startsWith('onnx')) return 1e12;
  return name.startsWith('nvidia') ? 3e13 : 3e7;
}
