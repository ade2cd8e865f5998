import { type DeviceChoice, devices, type LoadOptions } from '../app.ts';
import { type SamplerName, samplers } from '../diffusion/samplers.ts';
import { defaultSettings, RequestError, type SamplingRequest, trainedOn } from '../pipeline/request.ts';
import type { Size } from '../video/frames.ts';
import { numberOption, suggestion, UsageError } from './command.ts';
import { precisionOption, precisionSetting } from './device-options.ts';

/** Options that all commands which make video share. */
export const samplingOptions = {
  out: {
    type: 'string',
    value: 'FILE',
    short: 'o',
    help: 'Result: .mp4, .webm, .gif, .webp, .png, .jpg (required)',
  },
  seed: { type: 'string', value: 'N', help: 'The same seed gives the same video (default: drawn, and told)' },
  steps: {
    type: 'string',
    value: 'N',
    help: 'Steps from noise to video',
    default: `${defaultSettings.steps}`,
  },
  guidance: {
    type: 'string',
    value: 'X',
    help: 'Strength of the prompt, less near given frames; 1 takes half the time',
    default: `${defaultSettings.guidance}`,
  },
  'guidance-interval': {
    type: 'string',
    value: 'LOW,HIGH',
    help: 'Timesteps between which guidance acts',
    default: defaultSettings.guidanceInterval.join(),
  },
  negative: { type: 'string', value: 'TEXT', help: 'What the video should not show' },
  sampler: {
    type: 'string',
    value: 'NAME',
    help: `One of ${Object.keys(samplers).join(', ')}`,
    default: defaultSettings.sampler,
  },
  model: {
    type: 'string',
    value: 'NAME',
    help: 'Model: micro, or a folder with its files',
    default: 'micro',
  },
  device: { type: 'string', value: 'NAME', help: `One of auto, ${devices.join(', ')}`, default: 'auto' },
  precision: precisionSetting,
  threads: { type: 'string', value: 'N', help: 'Threads of the CPU (default: one for each core)' },
  plan: { type: 'boolean', help: 'Say what would be done, and stop' },
  'dry-run': { type: 'boolean', help: 'The same as --plan' },
} as const;

/** Values of {@link samplingOptions} as the command line gives them. */
export interface SamplingValues {
  readonly seed: string | undefined;
  readonly steps: string;
  readonly guidance: string;
  readonly 'guidance-interval': string;
  readonly negative: string | undefined;
  readonly sampler: string;
}

/** The part of a request that {@link samplingOptions} say. @throws UsageError for a value that cannot be read. */
export function samplingRequest(prompt: string, values: SamplingValues): SamplingRequest {
  const { seed, steps, guidance, negative } = values;
  const [low, high] = pairOption('guidance-interval', values['guidance-interval'], ',');
  return {
    prompt,
    steps: numberOption('steps', steps, { min: 1, max: 1000, integer: true }),
    guidance: numberOption('guidance', guidance, { min: 0, max: 100 }),
    guidanceInterval: [low, high],
    sampler: samplerOption(values.sampler),
    ...(negative !== undefined && { negative }),
    ...(seed !== undefined && {
      seed: numberOption('seed', seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }),
    }),
  };
}

/** Options that say how large and how long a video is. */
export const extentOptions = {
  size: {
    type: 'string',
    value: 'WxH',
    help: `Width and height in pixels (default ${trainedOn.size.width}x${trainedOn.size.height})`,
  },
  seconds: { type: 'string', value: 'S', help: 'Duration (default: about two seconds)' },
  frames: { type: 'string', value: 'N', help: 'Number of frames, in place of --seconds; 1 makes a still' },
  fps: { type: 'string', value: 'N', help: 'Frames a second', default: `${trainedOn.rate}` },
} as const;

/** Reads `64x48`. @throws UsageError for what is no size. */
export function sizeOption(text: string): Size {
  const [width, height] = pairOption('size', text, 'x');
  return { width, height };
}

/** Values of {@link samplingOptions} that say what a model runs on. */
export interface DeviceValues {
  readonly device: string;
  readonly precision: string | undefined;
  readonly threads: string | undefined;
}

/** Reads what a model is to run on. @throws UsageError for what there is not, or the device does not offer. */
export function loadOptions({ device: name, precision, threads }: DeviceValues): LoadOptions {
  const device = deviceChoice(name);
  return { device, ...precisionOption(device, precision), ...threadsOption(threads) };
}

function deviceChoice(name: string): DeviceChoice {
  const choices = ['auto', ...devices] as const;
  const device = choices.find((one) => one === name);
  if (device !== undefined) return device;
  throw new UsageError(
    `zoetrope: --device must be one of ${choices.join(', ')}, got '${name}'${suggestion(name, choices)}`,
  );
}

function threadsOption(text: string | undefined): { readonly threads?: number } {
  if (text === undefined) return {};
  return { threads: numberOption('threads', text, { min: 1, max: 256, integer: true }) };
}

/** Options whose name differs from the field of the request that they set. */
const optionOf: Readonly<Record<string, string>> = { rate: 'fps', guidanceInterval: 'guidance-interval' };

/** Runs what checks a request; a {@link RequestError} becomes a mistake in the command line, by the option's name. */
export async function asUsage<T>(check: () => T | Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    const { field, problem } = error;
    const name = field === 'prompt' ? 'the prompt' : `--${optionOf[field] ?? field}`;
    throw new UsageError(`zoetrope: ${name} ${problem}`);
  }
}

function samplerOption(name: string): SamplerName {
  const names = Object.keys(samplers) as SamplerName[];
  const sampler = names.find((one) => one === name);
  if (sampler !== undefined) return sampler;
  throw new UsageError(
    `zoetrope: --sampler must be one of ${names.join(', ')}, got '${name}'${suggestion(name, names)}`,
  );
}

function pairOption(name: string, text: string, separator: string): [number, number] {
  const parts = text.toLowerCase().split(separator);
  const [first = Number.NaN, second = Number.NaN] = parts.map((part) =>
    part.trim() === '' ? Number.NaN : Number(part),
  );
  if (parts.length === 2 && Number.isFinite(first) && Number.isFinite(second)) return [first, second];
  throw new UsageError(`zoetrope: --${name} must be two numbers such as 1${separator}2, got '${text}'`);
}
