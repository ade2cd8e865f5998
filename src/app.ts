import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { UserError } from './errors.ts';
import { type Executor, type OwnOperators, type Precision, precisions } from './executors/executor.ts';
import type { ProcessGroup } from './executors/process-group.ts';
import { installedVersion } from './installed.ts';
import { readVideoModel } from './pipeline/model-files.ts';
import { RequestError } from './pipeline/request.ts';
import { VideoModel } from './pipeline/video-model.ts';
import { fromFloat32, toFloat32 } from './tensor/host-tensor.ts';
import { trace } from './tensor/trace.ts';

/** Where graphs can run: ONNX Runtime on the CPU or on a GPU, an NVIDIA GPU by its own libraries, the float64 oracle. */
export const devices = ['cpu', 'webgpu', 'nvidia', 'reference'] as const;

/** Name of a device, as on the command line. */
export type DeviceName = (typeof devices)[number];

/** The precisions that each device offers. */
export const precisionsOf: Readonly<Record<DeviceName, readonly Precision[]>> = {
  cpu: ['fp32', 'bf16'],
  webgpu: [],
  nvidia: precisions,
  reference: [],
};

/** Settings of {@link openExecutor}. */
export interface DeviceOptions {
  /** Threads of the `cpu` device; default as many as there are physical cores. Others do not use it. */
  readonly threads?: number;
  /** Which GPU of the `nvidia` device, counted from 0. Default 0. Others do not use it. */
  readonly gpu?: number;
  /**
   * The processes that collectives are of, for `nvidia` and `reference`; all of them have to open an executor.
   * Default: this one alone.
   */
  readonly processes?: ProcessGroup | undefined;
  /** Precision of `nvidia`, default `tf32`, or of `cpu`, `fp32` (default) or `bf16`. Others have but their own. */
  readonly precision?: Precision;
}

/**
 * Opens the executor for a device, loading nothing of the others. Dispose it to free its memory and threads.
 * @throws UserError for a name that is none of {@link devices}, for a precision that the device does not offer, and when
 * there is no NVIDIA GPU or its libraries lack.
 */
export async function openExecutor(
  device: DeviceName = 'cpu',
  { threads = 0, gpu = 0, processes, precision }: DeviceOptions = {},
): Promise<Executor> {
  if (processes !== undefined && (device === 'cpu' || device === 'webgpu'))
    throw new UserError(`device ${device}: serves one process alone; use --device nvidia`);
  if (precision !== undefined && !precisionsOf[device].includes(precision))
    throw new UserError(
      `device ${device} offers no precision ${precision}; use device nvidia or leave it out`,
    );
  switch (device) {
    case 'reference': {
      const { ReferenceExecutor } = await import('./executors/reference/reference-executor.ts');
      return new ReferenceExecutor(processes);
    }
    case 'cpu':
    case 'webgpu': {
      if (installedVersion('onnxruntime-node') === undefined)
        throw new UserError(
          `device ${device}: ONNX Runtime is not in this installation; use --device nvidia`,
        );
      const { openOnnxExecutor } = await import('./executors/onnx/open-node.ts');
      if (precision === 'bf16')
        return await multiplyingBfloat16(openOnnxExecutor({ device, threads, precision }));
      return openOnnxExecutor({ device, threads });
    }
    case 'nvidia': {
      const { openNvidiaExecutor } = await import('./executors/nvidia/open.ts');
      try {
        return await openNvidiaExecutor({ device: gpu, processes, ...(precision && { precision }) });
      } catch (error) {
        throw new UserError(`device nvidia: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    default:
      throw new UserError(`device ${String(device)} is unknown; use one of ${devices.join(', ')}`);
  }
}

/** An executor that was opened for `bf16`, if it can multiply so here; else it is disposed. */
async function multiplyingBfloat16(executor: Executor): Promise<Executor> {
  const { bfloat16, level, problem } = (await executor.ownOperators?.()) ?? {};
  if (bfloat16 === true) return executor;
  await executor[Symbol.asyncDispose]();
  const reason =
    level === undefined
      ? `needs operators of our own, and there are none (${problem ?? 'ONNX Runtime runs by its Node package'})`
      : 'needs AVX512_BF16, which this processor lacks';
  throw new UserError(`device cpu: precision bf16 ${reason}; leave it out`);
}

/** What {@link testDevice} found. */
export interface TestedDevice {
  /** Name of what runs there. */
  readonly executor: string;
  /** What runs in place of what should, and why. */
  readonly fallback?: string;
  /** What became of operators of our own, where those are expected. */
  readonly operators?: OwnOperators;
}

/**
 * Computes something on a device, to see that it can be used.
 * @throws UserError or ExecutorError saying why it cannot.
 */
export async function testDevice(device: DeviceName): Promise<TestedDevice> {
  await using executor = await openExecutor(device);
  const { graph } = trace('test', (x) => [x.add(1)], { shape: [1], dtype: 'f32' });
  const executable = await executor.compile(graph);
  const [result] = await executor.run(executable, [
    executor.upload(fromFloat32('f32', [1], Float32Array.of(1))),
  ]);
  const two = result && toFloat32(await executor.download(result))[0];
  if (two !== 2) throw new UserError(`device ${device}: 1 + 1 gave ${two}; use another device`);
  const fallback = await executor.fallback?.();
  const operators = await executor.ownOperators?.();
  return {
    executor: executor.name,
    ...(fallback !== undefined && { fallback }),
    ...(operators && { operators }),
  };
}

/** A device's name, or `auto`: an NVIDIA GPU where one can be used, else the CPU. */
export type DeviceChoice = DeviceName | 'auto';

/**
 * {@link openExecutor}, where the choice may be left to what the machine has. A precision is kept to: with `auto` the CPU
 * stands in for an NVIDIA GPU only in those that it has too, `fp32` and `bf16`.
 * @throws UserError as {@link openExecutor}; for `auto` also a RequestError for a precision that no CPU offers.
 */
export async function openDevice(
  device: DeviceChoice = 'auto',
  options: DeviceOptions = {},
): Promise<Executor> {
  if (device !== 'auto') return await openExecutor(device, options);
  const found = await openNvidia(options);
  if (typeof found !== 'string') return found;
  const { threads, precision = 'fp32' } = options;
  if (!precisionsOf.cpu.includes(precision))
    throw new RequestError(
      'precision',
      `${precision} cannot be had here (${found}); leave it out, or see zoetrope doctor`,
    );
  return await openExecutor('cpu', { precision, ...(threads !== undefined && { threads }) });
}

/** The executor of an NVIDIA GPU, or in one line why there is none. */
async function openNvidia(options: DeviceOptions): Promise<Executor | string> {
  const libraries = await reportNvidiaLibraries();
  const missing = libraries.find(({ path, isOptional }) => path === undefined && !isOptional);
  if (missing !== undefined) return `device nvidia: ${firstPart(missing.problem ?? missing.name)}`;
  try {
    return await openExecutor('nvidia', options);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** What goes before the details. */
function firstPart(problem: string): string {
  return problem.split(/[;\n]/)[0] ?? '';
}

/** Where models that are called by name are: `weights/NAME` of the package. */
export const weightsFolder = new URL('../weights/', import.meta.url);

/** The folder of a model: one that comes with the package by its name, such as `micro`, any other by its path. */
export function modelFolder(nameOrFolder: string): string {
  if (!/^[a-z0-9-]+$/.test(nameOrFolder)) return nameOrFolder;
  const packaged = fileURLToPath(new URL(nameOrFolder, weightsFolder));
  return existsSync(packaged) || !existsSync(nameOrFolder) ? packaged : nameOrFolder;
}

/** How {@link loadModel} loads. */
export interface LoadOptions extends DeviceOptions {
  /** Default `auto`. */
  readonly device?: DeviceChoice;
}

/**
 * Loads a model for making videos. Dispose it to free its memory and threads.
 *
 * ```ts
 * await using model = await loadModel('micro', { device: 'cpu' });
 * ```
 * @param nameOrFolder `micro`, which comes with the package, or a folder with `autoencoder.safetensors` and
 * `transformer.safetensors`.
 * @throws UserError when a file is missing or damaged, the two do not belong together, or the device is not there; as a
 * RequestError for a precision that `auto` finds nowhere.
 */
export async function loadModel(
  nameOrFolder = 'micro',
  { device = 'auto', ...options }: LoadOptions = {},
): Promise<VideoModel> {
  const weights = await readVideoModel(modelFolder(nameOrFolder));
  const executor = await openDevice(device, options);
  try {
    return new VideoModel(executor, weights);
  } catch (error) {
    await executor[Symbol.asyncDispose]();
    throw error;
  }
}

/** What was found of NVIDIA's libraries, for a report to the user: a file or a problem for each. Never rejects. */
export async function reportNvidiaLibraries(): Promise<
  readonly {
    readonly name: string;
    readonly isOptional: boolean;
    readonly path?: string;
    readonly problem?: string;
  }[]
> {
  try {
    const { reportLibraries } = await import('./executors/nvidia/bindings/discovery.ts');
    return reportLibraries();
  } catch (error) {
    // Nothing can be called on a platform without koffi.
    return [
      { name: 'koffi', isOptional: false, problem: error instanceof Error ? error.message : String(error) },
    ];
  }
}
