import { existsSync } from 'node:fs';
import { describe, it } from 'vitest';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { trace } from '../../src/tensor/trace.ts';
import { cases } from './cases.ts';
import { describeConformance } from './conformance.ts';
import { nnCases } from './nn-cases.ts';

// Chromium's software Vulkan, unless the machine names a driver of its own.
const softwareVulkan = '/usr/lib/chromium/vk_swiftshader_icd.json';
if (process.env.VK_ICD_FILENAMES === undefined && existsSync(softwareVulkan))
  process.env.VK_ICD_FILENAMES = softwareVulkan;

const open = () => openOnnxExecutor({ device: 'webgpu', strict: true });

/** Why WebGPU cannot be used here; undefined when it can. */
async function missing(): Promise<string | undefined> {
  await using executor = open();
  try {
    await executor.compile(trace('probe', (x) => x.exp(), { shape: [1], dtype: 'f32' as const }).graph);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

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

const reason = await missing();
if (reason === undefined) {
  // SwiftShader's exp, tanh and division are good to a few units in the fifth digit.
  describeConformance('onnx webgpu', open, { ...cases, ...nnCases }, { tolerance: 2e-6, skips });
} else {
  describe('conformance of onnx webgpu', () => {
    it.skip(`no WebGPU here: ${reason}`);
  });
}
