import { loadLibrary } from './discovery.ts';
import { NativeMemory, textAt } from './native.ts';

const prototypes = {
  ncclGetVersion: ['int', 'pointer'],
  ncclGetUniqueId: ['int', 'pointer'],
  ncclGetErrorString: ['pointer', 'int'],
  ncclGetLastError: ['pointer', 'pointer'],
  ncclCommInitRank: ['int', 'pointer', 'int', 'bytes128', 'int'],
  ncclCommDestroy: ['int', 'pointer'],
  ncclGroupStart: ['int'],
  ncclGroupEnd: ['int'],
  ncclAllReduce: ['int', 'pointer', 'pointer', 'size', 'int', 'int', 'pointer', 'pointer'],
  ncclAllGather: ['int', 'pointer', 'pointer', 'size', 'int', 'pointer', 'pointer'],
  ncclReduceScatter: ['int', 'pointer', 'pointer', 'size', 'int', 'int', 'pointer', 'pointer'],
} as const;

/** Numbers of `ncclDataType_t`. */
export const ncclTypes = { f16: 6, f32: 7, bf16: 9 } as const;

/** `ncclSum`. */
export const ncclSum = 0;

/** Bytes of `ncclUniqueId`, by which the processes of a communicator find each other. */
export const uniqueIdBytes = 128;

/** The functions of NCCL, and the check of their status. */
export type Nccl = ReturnType<typeof loadNccl>;

/**
 * Loads NCCL.
 * @throws Error when it is not installed.
 */
export function loadNccl() {
  // Multicast over NVLink needs what containers often lack, and then hangs or fails; read when the library is loaded.
  process.env.NCCL_NVLS_ENABLE = '0';
  const { path, functions } = loadLibrary('nccl', prototypes);
  const check = (status: number, action: string): void => {
    if (status === 0) return;
    const [name, detail] = [functions.ncclGetErrorString(status), functions.ncclGetLastError(null)].map(
      textAt,
    );
    throw new Error(`${action}: ${name || `NCCL error ${status}`}${detail && `: ${detail.trim()}`}`);
  };
  const out = new NativeMemory(8);
  check(functions.ncclGetVersion(out.bytes), 'ncclGetVersion');
  return { path, version: out.int(), check, ...functions };
}
