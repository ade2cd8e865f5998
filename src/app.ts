import { UserError } from './errors.ts';
import type { Executor } from './executors/executor.ts';

/** Where graphs can run: ONNX Runtime on the CPU or on a GPU, an NVIDIA GPU by its own libraries, the float64 oracle. */
export const devices = ['cpu', 'webgpu', 'nvidia', 'reference'] as const;

/** Name of a device, as on the command line. */
export type DeviceName = (typeof devices)[number];

/**
 * Opens the executor for a device, loading nothing of the others. Dispose it to free its memory and threads.
 * @throws UserError for a name that is none of {@link devices}, and when there is no NVIDIA GPU or its libraries lack.
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
    case 'nvidia': {
      const { openNvidiaExecutor } = await import('./executors/nvidia/open.ts');
      try {
        return await openNvidiaExecutor();
      } catch (error) {
        throw new UserError(`device nvidia: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    default:
      throw new UserError(`device ${String(device)} is unknown; use one of ${devices.join(', ')}`);
  }
}

/** What was found of NVIDIA's libraries, for a report to the user: a file or a problem for each. Never rejects. */
export async function reportNvidiaLibraries(): Promise<
  readonly { readonly name: string; readonly path?: string; readonly problem?: string }[]
> {
  const { reportLibraries } = await import('./executors/nvidia/bindings/discovery.ts');
  return reportLibraries();
}
