import { NvidiaExecutor, type NvidiaSettings } from './nvidia-executor.ts';
import { partition } from './plain/partition.ts';
import { prelude } from './plain/prelude.ts';

/**
 * Opens the executor of an NVIDIA GPU of this machine.
 * @throws Error naming what is missing: a driver, a GPU, a library.
 */
export async function openNvidiaExecutor(settings: NvidiaSettings = {}): Promise<NvidiaExecutor> {
  return new NvidiaExecutor({ partition, prelude }, settings);
}
