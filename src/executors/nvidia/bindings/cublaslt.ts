import { loadLibrary } from './discovery.ts';
import { NativeMemory, textAt } from './native.ts';

const prototypes = {
  cublasLtCreate: ['int', 'pointer'],
  cublasLtDestroy: ['int', 'pointer'],
  cublasLtGetVersion: ['size'],
  cublasLtGetStatusString: ['pointer', 'int'],
  cublasLtMatmulDescCreate: ['int', 'pointer', 'int', 'int'],
  cublasLtMatmulDescSetAttribute: ['int', 'pointer', 'int', 'pointer', 'size'],
  cublasLtMatmulDescDestroy: ['int', 'pointer'],
  cublasLtMatrixLayoutCreate: ['int', 'pointer', 'int', 'int64', 'int64', 'int64'],
  cublasLtMatrixLayoutSetAttribute: ['int', 'pointer', 'int', 'pointer', 'size'],
  cublasLtMatrixLayoutDestroy: ['int', 'pointer'],
  cublasLtMatmulPreferenceCreate: ['int', 'pointer'],
  cublasLtMatmulPreferenceSetAttribute: ['int', 'pointer', 'int', 'pointer', 'size'],
  cublasLtMatmulPreferenceDestroy: ['int', 'pointer'],
  cublasLtMatmulAlgoGetHeuristic: [
    'int',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'int',
    'pointer',
    'pointer',
  ],
  cublasLtMatmul: [
    'int',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'pointer',
    'size',
    'pointer',
  ],
} as const;

/** Numbers of `cudaDataType_t`. */
export const cudaTypes = { f32: 0, f16: 2, bf16: 14, f8e4m3: 28 } as const;

/** Numbers of `cublasComputeType_t`: sums in float32, products of exact float32 or of TF32 values. */
export const computeTypes = { f32: 68, tf32: 77 } as const;

/** Numbers of `cublasLtMatmulDescAttributes_t`. */
export const descriptorAttributes = {
  transposeA: 3,
  transposeB: 4,
  epilogue: 7,
  biasPointer: 8,
  auxiliaryPointer: 11,
  auxiliaryLeading: 12,
  fastAccumulation: 25,
} as const;

/**
 * Numbers of `cublasLtEpilogue_t`: what is done to sums before they are written. The bias is a vector in the type of the
 * result, gelu is the form with tanh, and `geluKeepingSum` writes what gelu is taken of as well, in rows of a multiple
 * of 8 elements.
 */
export const epilogues = { none: 1, bias: 4, biasGelu: 36, biasGeluKeepingSum: 164 } as const;

/** Numbers of `cublasLtMatrixLayoutAttribute_t`. */
export const layoutAttributes = { batchCount: 5, batchStride: 6 } as const;

/** Numbers of `cublasLtMatmulPreferenceAttributes_t`. */
export const preferenceAttributes = {
  maxWorkspaceBytes: 1,
  minAlignmentA: 5,
  minAlignmentB: 6,
  minAlignmentC: 7,
  minAlignmentD: 8,
} as const;

/** Layout of `cublasLtMatmulHeuristicResult_t`: the algorithm is first, the fields are at these bytes. */
export const heuristicResult = { bytes: 96, algorithmBytes: 64, workspaceAt: 64, statusAt: 72 } as const;

/** The functions of cuBLASLt, a handle, and the check of their status. */
export type CublasLt = ReturnType<typeof openCublasLt>;

/**
 * Loads cuBLASLt and makes a handle in the current CUDA context.
 * @throws Error when it is not installed.
 */
export function openCublasLt() {
  const { path, functions } = loadLibrary('cublasLt', prototypes);
  const check = (status: number, action: string): void => {
    if (status === 0) return;
    throw new Error(`${action}: ${textAt(functions.cublasLtGetStatusString(status)) || `status ${status}`}`);
  };
  const out = new NativeMemory(8);
  check(functions.cublasLtCreate(out.bytes), 'cublasLtCreate');
  return {
    path,
    version: Number(functions.cublasLtGetVersion()),
    handle: out.pointer(),
    check,
    ...functions,
  };
}
