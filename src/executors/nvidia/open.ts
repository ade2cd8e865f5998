import type { ProcessGroup } from '../process-group.ts';
import { newCommunicatorId } from './communicator.ts';
import { gpuCount } from './device.ts';
import { fusedPartition } from './fusion/partition.ts';
import { prepare } from './fusion/prepare.ts';
import { NvidiaExecutor, type NvidiaSettings } from './nvidia-executor.ts';
import { partition } from './plain/partition.ts';
import { fastPrelude, prelude } from './plain/prelude.ts';

/** Settings of {@link openNvidiaExecutor}. */
export interface OpenSettings extends NvidiaSettings {
  /** Whether kernels are fused; without, each node has a kernel of its own, for comparison. Default true. */
  readonly fusion?: boolean;
  /** The processes that collectives are of; all of them have to open their executor. Default: this one alone. */
  readonly processes?: ProcessGroup | undefined;
}

/**
 * Opens the executor of an NVIDIA GPU of this machine.
 * @throws Error naming what is missing: a driver, a GPU, a library.
 */
export async function openNvidiaExecutor({
  fusion = true,
  processes,
  ...settings
}: OpenSettings = {}): Promise<NvidiaExecutor> {
  const functions = { prelude: settings.precision === 'fp32' ? prelude : fastPrelude };
  const generator = fusion
    ? { prepare, partition: fusedPartition, ...functions }
    : { partition, ...functions };
  if (processes === undefined) return new NvidiaExecutor(generator, settings);
  // Whoever starts the processes may show each of them its own GPU alone.
  const isShownOne = process.env.CUDA_VISIBLE_DEVICES !== undefined && gpuCount() === 1;
  const executor = new NvidiaExecutor(generator, isShownOne ? { ...settings, device: 0 } : settings);
  const own = processes.rank === 0 ? newCommunicatorId() : new Uint8Array();
  const [id = own] = await processes.exchange(own);
  executor.connect(processes, id);
  return executor;
}
