import { type DeviceChoice, type DeviceOptions, devices, precisionsOf } from '../app.ts';
import { type Precision, precisions } from '../executors/executor.ts';
import { suggestion, UsageError } from './command.ts';

/** The option `--precision` of every command that runs a model. */
export const precisionSetting = {
  type: 'string',
  value: 'NAME',
  help: helpOf(precisions),
} as const;

/** @param offered precisions of the device nvidia. */
function helpOf(offered: readonly Precision[]): string {
  return `Of nvidia: ${offered.join(', ')} (default: tf32); of cpu: ${precisionsOf.cpu.join(', ')} (default: fp32)`;
}

/** The devices that offer a precision, in words. */
function devicesOf(precision: Precision): string {
  return devices.filter((device) => precisionsOf[device].includes(precision)).join(' and ');
}

/** Precisions in which gradients are computed. */
const trainingPrecisions = precisions.filter((name) => name !== 'fp8');

/** The option `--precision` of commands that train. */
export const trainingPrecisionSetting = {
  ...precisionSetting,
  help: helpOf(trainingPrecisions),
} as const;

/**
 * {@link precisionOption} of a command that trains.
 * @throws UsageError for `fp8` as well, in which no gradients are computed.
 */
export function trainingPrecisionOption(
  device: DeviceChoice,
  name: string | undefined,
): Pick<DeviceOptions, 'precision'> {
  if (name === 'fp8')
    throw new UsageError('zoetrope: --precision fp8 is for making videos, not for training; use bf16');
  return precisionOption(device, name, trainingPrecisions);
}

/**
 * Reads a precision, one of those offered (default: all). With the device `auto` only opening it
 * tells whether it can be had.
 * @throws UsageError for a precision that there is not, or that the device does not offer.
 */
export function precisionOption(
  device: DeviceChoice,
  name: string | undefined,
  offered: readonly Precision[] = precisions,
): Pick<DeviceOptions, 'precision'> {
  if (name === undefined) return {};
  const precision = offered.find((one) => one === name);
  if (precision === undefined) {
    throw new UsageError(
      `zoetrope: --precision must be one of ${offered.join(', ')}, got '${name}'${suggestion(name, offered)}`,
    );
  }
  if (device !== 'auto' && !precisionsOf[device].includes(precision))
    throw new UsageError(
      `zoetrope: --precision ${precision} is of --device ${devicesOf(precision)}, not of ${device}; leave it out`,
    );
  return { precision };
}
