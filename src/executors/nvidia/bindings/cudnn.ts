import { loadLibrary } from './discovery.ts';
import { NativeMemory, textAt } from './native.ts';

const prototypes = {
  cudnnGetVersion: ['size'],
  cudnnGetErrorString: ['pointer', 'int'],
  cudnnGetLastErrorString: ['void', 'pointer', 'size'],
  cudnnCreate: ['int', 'pointer'],
  cudnnDestroy: ['int', 'pointer'],
  cudnnSetStream: ['int', 'pointer', 'pointer'],
  cudnnBackendCreateDescriptor: ['int', 'int', 'pointer'],
  cudnnBackendDestroyDescriptor: ['int', 'pointer'],
  cudnnBackendSetAttribute: ['int', 'pointer', 'int', 'int', 'int64', 'pointer'],
  cudnnBackendGetAttribute: ['int', 'pointer', 'int', 'int', 'int64', 'pointer', 'pointer'],
  cudnnBackendFinalize: ['int', 'pointer'],
  cudnnBackendExecute: ['int', 'pointer', 'pointer', 'pointer'],
} as const;

/** Numbers of `cudnnDataType_t`. */
export const cudnnTypes = { f32: 0, f16: 2, i32: 4, bf16: 9, i64: 10, bool: 11, f8e4m3: 12 } as const;

/** Numbers of `cudnnBackendDescriptorType_t`. */
export const descriptors = {
  pointwise: 0,
  convolution: 1,
  engineConfiguration: 3,
  heuristic: 4,
  executionPlan: 5,
  convolutionForward: 10,
  convolutionKernelGradient: 11,
  convolutionInputGradient: 12,
  pointwiseOperation: 13,
  operationGraph: 15,
  variantPack: 16,
  tensor: 17,
  matmul: 18,
  matmulOperation: 19,
  reduction: 21,
  reductionOperation: 22,
  reshapeOperation: 31,
} as const;

/** Numbers of `cudnnBackendAttributeType_t`: what an attribute's value is. */
export const attributeTypes = {
  handle: 0,
  dataType: 1,
  boolean: 2,
  int64: 3,
  float: 4,
  pointer: 6,
  convolutionMode: 7,
  heuristicMode: 8,
  pointwiseMode: 14,
  descriptor: 15,
  reductionOperator: 18,
  char: 24,
} as const;

/** Numbers of `cudnnBackendAttributeName_t`. */
export const attributes = {
  pointwiseMode: 0,
  pointwisePrecision: 1,
  pointwiseAxis: 9,
  convolutionPrecision: 100,
  convolutionMode: 101,
  convolutionDilations: 102,
  convolutionStrides: 103,
  convolutionPaddingAfter: 104,
  convolutionPaddingBefore: 105,
  convolutionSpatialAxes: 106,
  heuristicMode: 200,
  heuristicGraph: 201,
  heuristicResults: 202,
  planHandle: 400,
  planConfiguration: 401,
  planWorkspace: 402,
  planText: 405,
  pointwiseOperation: 750,
  pointwiseX: 751,
  pointwiseB: 752,
  pointwiseY: 753,
  pointwiseAlpha1: 754,
  pointwiseAlpha2: 755,
  pointwiseT: 758,
  graphHandle: 800,
  graphOperations: 801,
  tensorAlignment: 900,
  tensorType: 901,
  tensorSizes: 902,
  tensorStrides: 903,
  tensorId: 906,
  tensorIsVirtual: 907,
  tensorIsByValue: 908,
  tensorRaggedOffsets: 913,
  packIds: 1000,
  packPointers: 1001,
  packWorkspace: 1003,
  matmulPrecision: 1500,
  matmulA: 1520,
  matmulB: 1521,
  matmulC: 1522,
  matmulDescriptor: 1523,
  matmulM: 1525,
  matmulN: 1526,
  matmulK: 1527,
  reductionOperator: 1600,
  reductionPrecision: 1601,
  reductionX: 1610,
  reductionY: 1611,
  reductionDescriptor: 1612,
  reshapeX: 2200,
  reshapeY: 2201,
} as const;

/** Numbers of `cudnnPointwiseMode_t`. */
export const pointwiseModes = {
  add: 0,
  mul: 1,
  div: 6,
  sub: 9,
  exp: 13,
  log: 15,
  identity: 21,
  less: 304,
  and: 400,
  index: 501,
  select: 601,
} as const;

/** Numbers of `cudnnReduceTensorOp_t`. */
export const reductionOperators = { sum: 0, max: 3, largestMagnitude: 4 } as const;

/** Numbers of `cudnnBackendHeurMode_t`. */
export const heuristicModes = { fallback: 2, best: 3 } as const;

/** `CUDNN_CROSS_CORRELATION`. */
export const crossCorrelation = 1;

/** The functions of cuDNN, a handle on a stream, and the check of their status. */
export type Cudnn = ReturnType<typeof openCudnn>;

/** A status of cuDNN other than success: often that it has no engine for what was asked. */
export class CudnnError extends Error {
  override readonly name = 'CudnnError';
}

/**
 * Loads cuDNN and makes a handle that works on `stream`.
 * @throws Error when it is not installed.
 */
export function openCudnn(stream: bigint) {
  const { path, functions } = loadLibrary('cudnn', prototypes);
  const check = (status: number, action: string): void => {
    if (status === 0) return;
    const detail = new NativeMemory(4096);
    functions.cudnnGetLastErrorString(detail.bytes, 4000);
    const reason = textAt(detail.address).trim().replace(/\s+/g, ' ').slice(0, 400);
    throw new CudnnError(
      `${action}: ${textAt(functions.cudnnGetErrorString(status))}${reason && `: ${reason}`}`,
    );
  };
  const out = new NativeMemory(8);
  check(functions.cudnnCreate(out.bytes), 'cudnnCreate');
  const handle = out.pointer();
  check(functions.cudnnSetStream(handle, stream), 'cudnnSetStream');
  return { path, version: Number(functions.cudnnGetVersion()), handle, check, ...functions };
}
