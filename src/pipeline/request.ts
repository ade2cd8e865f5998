import { type SamplerName, samplers } from '../diffusion/samplers.ts';
import { UserError } from '../errors.ts';
import type { Size } from '../video/frames.ts';
import { maxPromptBytes } from './velocity-field.ts';

/** A value of a request that cannot be used. Its message is the field's name and what is wrong with it. */
export class RequestError extends UserError {
  override name = 'RequestError';
  /** Name of the field, as in the request. */
  readonly field: string;
  /** What is wrong with its value, and what to do. */
  readonly problem: string;

  constructor(field: string, problem: string) {
    super(`${field}: ${problem}`);
    this.field = field;
    this.problem = problem;
  }
}

/** How a video is sampled. Everything has a default, {@link defaultSettings}. */
export interface SamplingRequest {
  /** What the video should show; at most 1,280 bytes of UTF-8. */
  readonly prompt: string;
  /** What it should not show; default nothing in particular. */
  readonly negative?: string;
  /** Whole number of at least 0. The same seed gives the same video. Default: drawn, and told in the plan. */
  readonly seed?: number;
  /** Steps from noise to data, 1 to 1000. */
  readonly steps?: number;
  readonly sampler?: SamplerName;
  /** How strongly the prompt is followed, 0 to 100, beside given frames less; 1 takes half the time. */
  readonly guidance?: number;
  /** Timesteps [low, high] between which guidance acts, 0 to 1. */
  readonly guidanceInterval?: readonly [low: number, high: number];
}

/** A {@link SamplingRequest} with nothing left open. */
export type SamplingSettings = Required<SamplingRequest>;

/** What holds when a request says nothing else. */
export const defaultSettings = {
  negative: '',
  steps: 30,
  sampler: 'multistep',
  guidance: 4,
  guidanceInterval: [0, 1],
} as const satisfies Partial<SamplingRequest>;

/** What the models are trained on, and so the default of what is made: size in pixels, frames a second, frames. */
export const trainedOn = { size: { width: 64, height: 64 }, rate: 12, frames: 25 } as const;

/** Bounds of requests; beyond them lie mistakes rather than wishes. */
const most = { steps: 1000, guidance: 100, side: 8192, frames: 100_000, rate: 1000 } as const;

/**
 * A request with its defaults, checked.
 * @throws RequestError naming the first field whose value cannot be used.
 */
export function samplingSettings(request: SamplingRequest): SamplingSettings {
  const { prompt, negative, seed = drawSeed(), steps, sampler, guidance, guidanceInterval } = request;
  const settings: SamplingSettings = {
    prompt,
    negative: negative ?? defaultSettings.negative,
    seed,
    steps: steps ?? defaultSettings.steps,
    sampler: sampler ?? defaultSettings.sampler,
    guidance: guidance ?? defaultSettings.guidance,
    guidanceInterval: guidanceInterval ?? defaultSettings.guidanceInterval,
  };
  checkText('prompt', settings.prompt);
  checkText('negative', settings.negative);
  checkWhole('seed', settings.seed, 0, Number.MAX_SAFE_INTEGER);
  checkWhole('steps', settings.steps, 1, most.steps);
  if (!Object.hasOwn(samplers, settings.sampler)) {
    const names = Object.keys(samplers).join(', ');
    throw new RequestError('sampler', `'${settings.sampler}' is unknown; use one of ${names}`);
  }
  checkNumber('guidance', settings.guidance, 0, most.guidance);
  const [low, high] = settings.guidanceInterval;
  if (!(low >= 0 && low < high && high <= 1)) {
    throw new RequestError(
      'guidanceInterval',
      `${low} to ${high}; use two timesteps of 0 to 1, the lower first`,
    );
  }
  return settings;
}

/** How large and how long a video is to be. */
export interface ExtentRequest {
  /** In pixels; both sides multiples of the model's stride. Default 64x64. */
  readonly size?: Size;
  /** Number of frames; 1 makes a still. Default: by `seconds`. */
  readonly frames?: number;
  /** Duration, in place of `frames`; default about two seconds, 25 frames at 12 a second. */
  readonly seconds?: number;
  /** Frames a second at which it plays; default 12, that of training. Other rates change how fast things move. */
  readonly rate?: number;
}

/** An {@link ExtentRequest} with nothing left open. */
export interface Extent extends Size {
  readonly frames: number;
  readonly rate: number;
}

/**
 * The size, duration and rate of a request with its defaults, checked.
 * @param stride pixels of one video token's height and width.
 * @throws RequestError naming the first field whose value cannot be used.
 */
export function extentOf(
  { size = trainedOn.size, frames, seconds, rate = trainedOn.rate }: ExtentRequest,
  stride: Size,
): Extent {
  checkSize(size, stride);
  checkNumber('rate', rate, 0.1, most.rate);
  if (frames !== undefined && seconds !== undefined) {
    throw new RequestError('seconds', `${seconds} and ${frames} frames; give one of the two`);
  }
  if (frames !== undefined) checkWhole('frames', frames, 1, most.frames);
  if (seconds !== undefined && !(seconds > 0 && seconds * rate <= most.frames)) {
    throw new RequestError('seconds', `${seconds}; use more than 0, at most ${most.frames / rate}`);
  }
  const counted = frames ?? (seconds === undefined ? trainedOn.frames : Math.round(seconds * rate));
  return { ...size, rate, frames: Math.max(1, counted) };
}

/** @throws RequestError when a side is not a multiple of the stride, or none at all. */
export function checkSize({ width, height }: Size, stride: Size): void {
  const fits = (side: number, step: number) => Number.isInteger(side / step) && side > 0 && side <= most.side;
  if (fits(width, stride.width) && fits(height, stride.height)) return;
  const nearest = (side: number, step: number) =>
    Math.min(most.side, Math.max(step, Math.round((Number.isFinite(side) ? side : 0) / step) * step));
  throw new RequestError(
    'size',
    `${width}x${height} does not fit; width must be a multiple of ${stride.width} and height of ${stride.height}, ` +
      `such as ${nearest(width, stride.width)}x${nearest(height, stride.height)}`,
  );
}

/** @throws RequestError unless the value is a number from min to max. */
export function checkNumber(field: string, value: number, min: number, max: number): void {
  if (!(value >= min && value <= max))
    throw new RequestError(field, `${value}; use a number from ${min} to ${max}`);
}

/** @throws RequestError unless the value is a whole number from min to max. */
function checkWhole(field: string, value: number, min: number, max: number): void {
  if (!(Number.isInteger(value) && value >= min && value <= max))
    throw new RequestError(field, `${value}; use a whole number from ${min} to ${max}`);
}

function checkText(field: string, text: string): void {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > maxPromptBytes)
    throw new RequestError(field, `has ${bytes} bytes of UTF-8; the model reads at most ${maxPromptBytes}`);
}

/** A seed from the system's randomness: it only has to differ from the last one. Short enough to be typed again. */
export function drawSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
