import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Bound, bindLibrary, type Prototype } from './native.ts';

/** The libraries of NVIDIA that this executor can use. */
export type LibraryName = 'driver' | 'nvrtc' | 'cublasLt' | 'cudnn' | 'nccl';

const fileNames: Readonly<Record<LibraryName, { pattern: RegExp; system: readonly string[] }>> = {
  driver: { pattern: /^libcuda\.so\.1$/, system: ['libcuda.so.1'] },
  nvrtc: { pattern: /^libnvrtc\.so\.1[23]$/, system: ['libnvrtc.so.13', 'libnvrtc.so.12'] },
  cublasLt: { pattern: /^libcublasLt\.so\.1[23]$/, system: ['libcublasLt.so.13', 'libcublasLt.so.12'] },
  cudnn: { pattern: /^libcudnn\.so\.9$/, system: ['libcudnn.so.9'] },
  nccl: { pattern: /^libnccl\.so\.2$/, system: ['libnccl.so.2'] },
};

/** Libraries that one GPU does without. */
const optional: readonly LibraryName[] = ['nccl'];

/** Folders, separated by colons, that are searched before all others. */
export const libraryPathVariable = 'ZOETROPE_CUDA_LIBRARIES';

/** What became of looking for one library. */
export interface LibraryReport {
  readonly name: LibraryName;
  /** Whether one GPU does without. */
  readonly isOptional: boolean;
  /** The file that could be loaded, if any. */
  readonly path?: string;
  /** What was tried and why it failed, when nothing could be loaded. */
  readonly problem?: string;
}

/** Which libraries can be loaded, for a report to the user. Never throws. */
export function reportLibraries(): readonly LibraryReport[] {
  return (Object.keys(fileNames) as LibraryName[]).map((name) => {
    const isOptional = optional.includes(name);
    try {
      return { name, isOptional, path: loadLibrary(name, {}).path };
    } catch (error) {
      return { name, isOptional, problem: error instanceof Error ? error.message : String(error) };
    }
  });
}

/**
 * Loads the first file of a library that can be loaded, and binds functions of it.
 * @throws Error naming everything that was tried.
 */
export function loadLibrary<const Prototypes extends Readonly<Record<string, Prototype>>>(
  name: LibraryName,
  prototypes: Prototypes,
): { readonly path: string; readonly functions: Bound<Prototypes> } {
  const problems: string[] = [];
  for (const path of candidates(name)) {
    try {
      return { path, functions: bindLibrary(path, prototypes) };
    } catch (error) {
      problems.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(
    `no ${name} library of NVIDIA could be loaded; install it or name its folder in ${libraryPathVariable}. ` +
      `Tried ${problems.join('; ')}`,
  );
}

/** Files to try, best first: those of the environment variable, of Python packages, of toolkits, then the system's. */
export function candidates(name: LibraryName): readonly string[] {
  const { pattern, system } = fileNames[name];
  const found = libraryFolders().flatMap((folder) =>
    list(folder)
      .filter((file) => pattern.test(file))
      .sort()
      .reverse()
      .map((file) => join(folder, file)),
  );
  // The driver belongs to the machine: the loader knows best where it is.
  return name === 'driver' ? [...system, ...found] : [...found, ...system];
}

/** Files beside a library whose name begins with `prefix`. */
export function siblings(path: string, prefix: string): readonly string[] {
  const folder = path.slice(0, path.length - basename(path).length);
  return list(folder)
    .filter((file) => file.startsWith(prefix))
    .map((file) => join(folder, file));
}

function libraryFolders(): readonly string[] {
  const given = (process.env[libraryPathVariable] ?? '').split(':').filter((folder) => folder !== '');
  const toolkits = list('/usr/local')
    .filter((folder) => folder.startsWith('cuda'))
    .flatMap((folder) => [`/usr/local/${folder}/lib64`, `/usr/local/${folder}/targets/x86_64-linux/lib`]);
  const system = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/local/nvidia/lib64'];
  return [...given, ...pythonFolders(), ...toolkits, ...system];
}

/** `nvidia/<package>/lib` of every Python environment in a usual place. */
function pythonFolders(): readonly string[] {
  const { VIRTUAL_ENV, CONDA_PREFIX, HOME } = process.env;
  const environments = [VIRTUAL_ENV, CONDA_PREFIX, '/opt/torch/.venv', '/opt/venv', '/opt/conda']
    .filter((folder) => folder !== undefined)
    .concat(HOME === undefined ? [] : [join(HOME, '.local')], ['/usr/local', '/usr']);
  return environments.flatMap((environment) =>
    list(join(environment, 'lib'))
      .filter((version) => version.startsWith('python3'))
      .flatMap((version) =>
        ['site-packages', 'dist-packages'].map((kind) => join(environment, 'lib', version, kind)),
      )
      .map((packages) => join(packages, 'nvidia'))
      .flatMap((packages) => list(packages).map((name) => join(packages, name, 'lib'))),
  );
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
