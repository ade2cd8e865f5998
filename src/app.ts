import { UserError } from './errors.ts';
import type { Executor } from './executors/executor.ts';

/** Where graphs can run: the float64 oracle, ONNX Runtime on the CPU, ONNX Runtime on a GPU. */
export const devices = ['cpu', 'webgpu', 'reference'] as const;

/** Name of a device, as on the command line. */
export type DeviceName = (typeof devices)[number];

/**
 * Opens the executor for a device, loading nothing of the others. Dispose it to free its memory and threads.
 * @throws UserError for a name that is none of {@link devices}.
 */
export async function openExecutor(device: DeviceName = 'cpu'): Promise<Executor> {
  switch (device) {
    case 'reference': {
      const { ReferenceExecutor } = await import('./executors/reference/reference-executor.ts');
      return new ReferenceExecutor();
    }
    case 'cpu':
    case 'webgpu': {
      const { openOnnxExecutor } = await import('./executors/onnx/open-node.ts');
      return openOnnxExecutor({ device });
    }
    default:
      throw new UserError(`device ${String(device)} is unknown; use one of ${devices.join(', ')}`);
  }
}
