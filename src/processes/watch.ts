import { setTimeout as sleep } from 'node:timers/promises';

/** How far a process of a training is, and when that was last heard. */
export class Pulse {
  /** The last step that it finished; undefined before training. */
  step: number | undefined;
  /** Milliseconds of `performance.now`. */
  time = performance.now();
  /** Whether a next step is awaited of it; not before training, after it, or while it makes samples. */
  isAwaited = false;

  /** It finished a step, or begins after one: the next is awaited. */
  beat(step: number): void {
    this.step = step;
    this.isAwaited = true;
    this.time = performance.now();
  }

  /** It does something of unknown length. */
  rest(): void {
    this.isAwaited = false;
    this.time = performance.now();
  }
}

/** Resolves when a step is awaited of all processes, and none finished one for `patience` milliseconds. */
export async function stalled(
  pulses: readonly Pulse[],
  patience: number,
  signal: AbortSignal,
): Promise<void> {
  while (!isStalled(pulses, patience)) await sleep(patience / 10, undefined, { signal, ref: false });
}

/** Whether that is so now. */
export function isStalled(pulses: readonly Pulse[], patience: number): boolean {
  const now = performance.now();
  return pulses.every(({ isAwaited, time }) => isAwaited && now - time > patience);
}

/** A time as messages say it: `5 min`, `30 s`. */
export function formatPatience(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 100) / 10;
  return seconds >= 60 ? `${Math.round(seconds / 6) / 10} min` : `${seconds} s`;
}
