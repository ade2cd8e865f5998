/** The library: what `import … from 'zoetrope'` gives. */
export { type DeviceName, devices, openExecutor } from './app.ts';
export { UserError } from './errors.ts';
export {
  BufferScope,
  type CompileOptions,
  type DeviceBuffer,
  disposeAll,
  downloadTree,
  type Executable,
  type Executor,
  ExecutorError,
  inputsOf,
  uploadTree,
} from './executors/executor.ts';
export { selfAttention, selfAttentionSpec } from './nn/attention.ts';
export { causalConvolution, convolutionSpec, residualBlock, residualBlockSpec } from './nn/convolution.ts';
export { linear, linearSpec, mlp, mlpSpec } from './nn/linear.ts';
export {
  fanIn,
  initialize,
  type ParameterSpec,
  type Parameters,
  parameter,
  parameterCount,
} from './nn/parameters.ts';
export { rotaryAngles } from './nn/rotary-positions.ts';
export { transformerBlock, transformerBlockSpec } from './nn/transformer-block.ts';
export { fold, type Key, keyFromSeed, normal, RandomStream, split, uniform } from './random/philox.ts';
export { entryOf, openSafetensors, writeSafetensors } from './storage/safetensors.ts';
export type { DType } from './tensor/dtype.ts';
export * from './tensor/functions.ts';
export { gradients } from './tensor/gradients.ts';
export { fromFloat32, type HostTensor, hostTensor, toFloat32 } from './tensor/host-tensor.ts';
export { printGraph } from './tensor/print.ts';
export { expectShape, GraphError, type Shape, type TensorType } from './tensor/shape.ts';
export { constant, type Graph, type Tensor } from './tensor/tensor.ts';
export { block, checkpoint, type Traced, trace } from './tensor/trace.ts';
export { adamSchedule, adamState, adamW, learningRate } from './training/optimizer.ts';
