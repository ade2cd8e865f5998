import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import koffi from 'koffi';

// koffi runs C functions on a stack of its own, 2 MiB by default. Making a session optimises a graph by recursion. The
// size is read once, by the first load of a thread.
koffi.config({ ...koffi.config(), sync_stack_size: 16 << 20, sync_heap_size: 4 << 20 });

/** What C types are as arguments; memory is an address, and whoever passes it keeps the memory alive. */
interface ArgumentTypes {
  int: number;
  size: number | bigint;
  pointer: bigint | null;
  text: string;
  bytes: Uint8Array | BigUint64Array | BigInt64Array;
}

const cNames: Readonly<Record<keyof ArgumentTypes, string>> = {
  int: 'int',
  size: 'size_t',
  pointer: 'void *',
  text: 'const char *',
  bytes: 'void *',
};

type Parameters = readonly (keyof ArgumentTypes)[];
type Values<P extends Parameters> = { -readonly [I in keyof P]: ArgumentTypes[P[I]] };

/**
 * Functions of `OrtApi` that return a status: place in the struct, then parameters. Places never change once a version
 * has shipped (onnxruntime_c_api.h: "DO NOT MODIFY"); all of these are from version 8 or earlier.
 */
const checked = {
  CreateSessionFromArray: [8, 'pointer', 'bytes', 'size', 'pointer', 'bytes'],
  Run: [9, 'pointer', 'pointer', 'bytes', 'bytes', 'size', 'bytes', 'size', 'bytes'],
  CreateSessionOptions: [10, 'bytes'],
  DisableMemPattern: [17, 'pointer'],
  SetSessionLogSeverityLevel: [22, 'pointer', 'int'],
  SetIntraOpNumThreads: [24, 'pointer', 'int'],
  CreateCustomOpDomain: [26, 'text', 'bytes'],
  /** `CustomOpDomain_Add`. */
  AddOperator: [27, 'pointer', 'pointer'],
  AddCustomOpDomain: [28, 'pointer', 'pointer'],
  CreateTensorWithDataAsOrtValue: [49, 'pointer', 'pointer', 'size', 'bytes', 'size', 'int', 'bytes'],
  CreateRunOptions: [39, 'bytes'],
  CreateCpuMemoryInfo: [69, 'int', 'int', 'bytes'],
  CreateEnvWithGlobalThreadPools: [119, 'int', 'text', 'pointer', 'bytes'],
  DisablePerSessionThreads: [120, 'pointer'],
  CreateThreadingOptions: [121, 'bytes'],
  AddSessionConfigEntry: [130, 'pointer', 'text', 'text'],
  CreateAndRegisterAllocator: [144, 'pointer', 'pointer', 'pointer'],
  SetGlobalSpinControl: [149, 'pointer', 'int'],
  CreateArenaCfgV2: [164, 'bytes', 'bytes', 'size', 'bytes'],
  AddRunConfigEntry: [165, 'pointer', 'text', 'text'],
} as const satisfies Readonly<Record<string, readonly [place: number, ...parameters: Parameters]>>;

/** Functions of `OrtApi` that free what they are given. */
const releases = {
  ReleaseEnv: 92,
  ReleaseStatus: 93,
  ReleaseMemoryInfo: 94,
  ReleaseSession: 95,
  ReleaseValue: 96,
  ReleaseRunOptions: 97,
  ReleaseSessionOptions: 100,
  ReleaseCustomOpDomain: 101,
  ReleaseThreadingOptions: 122,
  ReleaseArenaCfg: 157,
} as const;

const getErrorMessage = 2;
const apiVersion = 8;

/** ONNX Runtime's C functions that this executor uses. Those that may fail throw an Error with the library's own text. */
export type OrtNative = {
  readonly [Name in keyof typeof checked]: (typeof checked)[Name] extends readonly [
    number,
    ...infer P extends Parameters,
  ]
    ? (...values: Values<P>) => void
    : never;
} & { readonly [Name in keyof typeof releases]: (handle: bigint) => void };

/** Loads the library that onnxruntime-node ships. @throws Error when this platform has none or it cannot be loaded. */
export function loadOrt(): OrtNative {
  const library = koffi.load(libraryFile(), { lazy: true });
  const base = library.func('OrtGetApiBase', 'void *', [])() as bigint;
  const getApi = functionAt(base, 0, 'void *', ['uint32_t']);
  const api = getApi(apiVersion) as bigint | null;
  if (api === null) throw new Error(`ONNX Runtime has no API of version ${apiVersion}`);
  const release = Object.entries(releases).map(([name, place]) => [
    name,
    functionAt(api, place, 'void', ['void *']),
  ]);
  const message = functionAt(api, getErrorMessage, 'const char *', ['void *']);
  const releaseStatus = functionAt(api, releases.ReleaseStatus, 'void', ['void *']);
  const check = (status: unknown) => {
    if (status === null) return;
    const text = String(message(status));
    releaseStatus(status);
    throw new Error(text);
  };
  const calls = Object.entries(checked).map(([name, [place, ...parameters]]) => {
    const call = functionAt(
      api,
      place,
      'void *',
      parameters.map((type) => cNames[type]),
    );
    return [name, (...values: unknown[]) => check(call(...values))];
  });
  return Object.fromEntries([...calls, ...release]) as OrtNative;
}

/** The function whose address is at a place of a struct of function pointers. */
function functionAt(struct: bigint, place: number, result: string, parameters: string[]) {
  const address = koffi.decode(struct, 8 * place, 'void *') as bigint;
  return koffi.decode(address, koffi.proto(result, parameters)) as (...values: unknown[]) => unknown;
}

function libraryFile(): string {
  const root = dirname(dirname(createRequire(import.meta.url).resolve('onnxruntime-node')));
  const folder = join(root, 'bin', 'napi-v6', process.platform, process.arch);
  const file = readdirSync(folder).find((name) =>
    /^(lib)?onnxruntime[.\d]*\.(so|dylib|dll)[.\d]*$/.test(name),
  );
  if (file === undefined) throw new Error(`no ONNX Runtime library in ${folder}`);
  return join(folder, file);
}
