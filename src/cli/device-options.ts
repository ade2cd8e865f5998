import type { DeviceChoice, DeviceOptions } from '../app.ts';
import { precisions } from '../executors/executor.ts';
import { suggestion, UsageError } from './command.ts';

/** The option `--precision` of every command that runs a model. */
export const precisionSetting = {
  type: 'string',
  value: 'NAME',
  help: `Of the device nvidia: ${precisions.join(', ')} (default: tf32)`,
} as const;

/**
 * Reads a precision. With the device `auto` it counts where that is an NVIDIA GPU.
 * @throws UsageError for a precision that there is not, or that the device does not offer.
 */
export function precisionOption(
  device: DeviceChoice,
  name: string | undefined,
): Pick<DeviceOptions, 'precision'> {
  if (name === undefined) return {};
  const precision = precisions.find((one) => one === name);
  if (precision === undefined) {
    throw new UsageError(
      `zoetrope: --precision must be one of ${precisions.join(', ')}, got '${name}'${suggestion(name, precisions)}`,
    );
  }
  if (device !== 'nvidia' && device !== 'auto')
    throw new UsageError(`zoetrope: --precision is of --device nvidia, not of ${device}; leave it out`);
  return { precision };
}
