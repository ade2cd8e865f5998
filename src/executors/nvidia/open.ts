import { fusedPartition } from './fusion/partition.ts';
import { prepare } from './fusion/prepare.ts';
import { NvidiaExecutor, type NvidiaSettings } from './nvidia-executor.ts';
import { partition } from './plain/partition.ts';
import { prelude } from './plain/prelude.ts';

/** Settings of {@link openNvidiaExecutor}. */
export interface OpenSettings extends NvidiaSettings {
  /** Whether kernels are fused; without, each node has a kernel of its own, for comparison. Default true. */
  readonly fusion?: boolean;
}

/**
 * Opens the executor of an NVIDIA GPU of this machine.
 * @throws Error naming what is missing: a driver, a GPU, a library.
 */
export async function openNvidiaExecutor({
  fusion = true,
  ...settings
}: OpenSettings = {}): Promise<NvidiaExecutor> {
  const generator = fusion ? { prepare, partition: fusedPartition, prelude } : { partition, prelude };
  return new NvidiaExecutor(generator, settings);
}
