import { existsSync } from 'node:fs';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { trace } from '../../src/tensor/trace.ts';

// Chromium's software Vulkan, unless the machine names a driver of its own.
const softwareVulkan = '/usr/lib/chromium/vk_swiftshader_icd.json';
if (process.env.VK_ICD_FILENAMES === undefined && existsSync(softwareVulkan))
  process.env.VK_ICD_FILENAMES = softwareVulkan;

/** Why WebGPU cannot be used here; undefined when it can. */
export async function noWebGpu(): Promise<string | undefined> {
  await using executor = openOnnxExecutor({ device: 'webgpu', strict: true });
  try {
    await executor.compile(trace('probe', (x) => x.exp(), { shape: [1], dtype: 'f32' as const }).graph);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
