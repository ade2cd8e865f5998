import { describe, it } from 'vitest';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { cases } from './cases.ts';
import { describeConformance } from './conformance.ts';
import { nnCases } from './nn-cases.ts';
import { noWebGpu } from './webgpu.ts';

const open = () => openOnnxExecutor({ device: 'webgpu', strict: true });

const noTrigonometry = 'the webgpu provider has no Sin and Cos; our models take angles from the host';
const noHalf =
  'needs a GPU with 16-bit shaders, which the software one is not; bf16 casts have no kernel at all';
const noInteger = 'the webgpu provider has no such kernel for int32';
const noBoolean = 'the webgpu provider has no such kernel for booleans';
const skips = {
  sin: noTrigonometry,
  cos: noTrigonometry,
  'cast/through bf16': noHalf,
  'cast/through f16': noHalf,
  'cast/f16 in and out': noHalf,
  'cast/bf16 in and out': noHalf,
  'scatterAdd/a large table': 'its one-hot matrix is slow on a software GPU',
  'neg/i32': noInteger,
  'where/i32': noInteger,
  'transpose/bool': noBoolean,
  'broadcast/bool': noBoolean,
};

const reason = await noWebGpu();
if (reason === undefined) {
  // SwiftShader's exp, tanh and division are good to a few units in the fifth digit.
  describeConformance('onnx webgpu', open, { ...cases, ...nnCases }, { tolerance: 2e-6, skips });
} else {
  describe('conformance of onnx webgpu', () => {
    it.skip(`no WebGPU here: ${reason}`);
  });
}
