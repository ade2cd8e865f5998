import { availableParallelism } from 'node:os';
import { type DeviceName, type DeviceOptions, devices } from '../app.ts';
import { UserError } from '../errors.ts';
import { type Launch, launchOf } from '../processes/launch.ts';
import type { CommonRecipe } from '../training/recipe.ts';
import { numberOption, suggestion, UsageError } from './command.ts';
import { trainingPrecisionOption, trainingPrecisionSetting } from './device-options.ts';

/** Options that the training commands share. */
export const trainOptions = {
  recipe: { type: 'string', value: 'FILE', help: 'Recipe, JSON (required)' },
  out: { type: 'string', value: 'DIR', help: 'Folder of the run, made if missing (required)' },
  device: { type: 'string', value: 'NAME', help: `One of ${devices.join(', ')}`, default: 'cpu' },
  precision: trainingPrecisionSetting,
  gpus: {
    type: 'string',
    value: 'N',
    help: 'GPUs of this machine, a process each, each with batches of its own',
    default: '1',
  },
  shard: {
    type: 'boolean',
    help: 'Divide the moments of AdamW among the GPUs instead of holding all in each',
  },
  patience: {
    type: 'string',
    value: 'MIN',
    help: 'Minutes without a finished step after which several GPUs are stopped as hanging',
    default: '5',
  },
  from: { type: 'string', value: 'FILE', help: 'Begin with the weights of this model file' },
  resume: { type: 'boolean', help: 'Go on from the newest checkpoint in --out' },
  steps: { type: 'string', value: 'N', help: "Stop after step N (default: all of the recipe's)" },
  threads: {
    type: 'string',
    value: 'N',
    help: 'Threads that make batches, for each GPU (default: its share of the cores but one, 1 to 14)',
  },
  plan: { type: 'boolean', help: 'Say what would be done, and stop' },
  'dry-run': { type: 'boolean', help: 'The same as --plan' },
} as const;

/** Values of {@link trainOptions} as the command line gives them. */
export interface TrainValues {
  readonly recipe: string | undefined;
  readonly out: string | undefined;
  readonly device: string;
  readonly gpus: string;
  readonly shard: boolean;
  readonly patience: string;
  readonly precision: string | undefined;
  readonly from: string | undefined;
  readonly resume: boolean;
  readonly steps: string | undefined;
  readonly threads: string | undefined;
  readonly plan: boolean;
  readonly 'dry-run': boolean;
}

/** Checked {@link TrainValues}. */
export interface TrainSettings {
  readonly recipe: string;
  readonly out: string;
  readonly device: DeviceName;
  /** The precision that was asked for, if one was. */
  readonly deviceOptions: Pick<DeviceOptions, 'precision'>;
  /** GPUs of this machine, of `--gpus`. */
  readonly gpus: number;
  /** Whether each process has its part of the moments alone. */
  readonly isSharded: boolean;
  /** Milliseconds without a finished step after which several processes are taken to hang. */
  readonly patience: number;
  /** GPUs that train together, on all machines. */
  readonly allGpus: number;
  /** What this process was told by whoever started it and others to train together. */
  readonly launch: Launch | undefined;
  readonly from: string | undefined;
  readonly resume: boolean;
  readonly steps: number | undefined;
  readonly threads: number;
  readonly planOnly: boolean;
}

/**
 * Checks what the training commands share.
 * @param command such as `zoetrope train autoencoder`, for messages.
 */
export function trainSettings(command: string, values: TrainValues): TrainSettings {
  const { recipe, out, steps, threads } = values;
  if (recipe === undefined)
    throw new UsageError(`${command}: --recipe FILE is missing; see ${command} --help`);
  if (out === undefined) throw new UsageError(`${command}: --out DIR is missing; see ${command} --help`);
  const launch = launchOf(process.env);
  const cores = Math.floor(availableParallelism() / (launch?.localWorld ?? 1));
  const count = numberOption('gpus', values.gpus, { min: 1, max: 64, integer: true });
  const device = deviceOption(values.device);
  const allGpus = launch?.world ?? count;
  if (values.shard && allGpus === 1)
    throw new UsageError('zoetrope: --shard divides the moments among several GPUs; add --gpus N');
  return {
    recipe,
    out,
    device,
    deviceOptions: trainingPrecisionOption(device, values.precision),
    gpus: count,
    patience: 60_000 * numberOption('patience', values.patience, { min: 0.01, max: 10_000 }),
    isSharded: values.shard,
    allGpus,
    launch,
    from: values.from,
    resume: values.resume,
    steps:
      steps === undefined ? undefined : numberOption('steps', steps, { min: 1, max: 1e9, integer: true }),
    threads:
      threads === undefined
        ? Math.min(14, Math.max(1, cores - 1))
        : numberOption('threads', threads, { min: 0, max: 64, integer: true }),
    planOnly: values.plan || values['dry-run'],
  };
}

/** @throws UserError when moments are to be divided that cannot be. @param file the recipe's. */
export function checkSharding({ isSharded, recipe: file }: TrainSettings, { optimizer }: CommonRecipe): void {
  if (isSharded && optimizer.method !== 'adamw')
    throw new UserError(
      `${file}: optimizer.method ${optimizer.method} moves whole matrices, so --shard cannot divide them; leave it out, or use adamw`,
    );
}

/** The command that made a model, as its file says. @param command such as `zoetrope train autoencoder`. */
export function commandOf(command: string, settings: TrainSettings): string {
  const { recipe, device, deviceOptions, allGpus, isSharded } = settings;
  const { precision } = deviceOptions;
  const options = [
    ...(precision === undefined ? [] : [`--precision ${precision}`]),
    ...(allGpus === 1 ? [] : [`--gpus ${allGpus}`]),
    ...(isSharded ? ['--shard'] : []),
  ];
  return [command, `--recipe ${recipe} --device ${device}`, ...options].join(' ');
}

/** Reads a device's name. Throws {@link UsageError} for one that there is not. */
export function deviceOption(name: string): DeviceName {
  const device = devices.find((one) => one === name);
  if (device !== undefined) return device;
  throw new UsageError(
    `zoetrope: --device must be one of ${devices.join(', ')}, got '${name}'${suggestion(name, devices)}`,
  );
}
