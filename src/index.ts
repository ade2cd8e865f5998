/** The library: what `import … from 'zoetrope'` gives. */
export {
  type DeviceChoice,
  type DeviceName,
  type DeviceOptions,
  devices,
  type LoadOptions,
  loadModel,
  openDevice,
  openExecutor,
} from './app.ts';
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
export { crossAttention, crossAttentionSpec, selfAttention, selfAttentionSpec } from './nn/attention.ts';
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
export {
  type EditPlan,
  type ExtendRequest,
  edit,
  type JoinRequest,
  type LoopRequest,
  planExtend,
  planJoin,
  planLoop,
} from './pipeline/edit.ts';
export { type Estimate, estimateEdit, estimateGeneration } from './pipeline/estimate.ts';
export {
  type GenerateHooks,
  type GenerateRequest,
  type GenerationPlan,
  generate,
  planGeneration,
} from './pipeline/generate.ts';
export { type GivenVideo, givenFile, givenVideo } from './pipeline/given-video.ts';
export type { RunHooks, StageProgress } from './pipeline/progress.ts';
export { RequestError, type SamplingRequest, type SamplingSettings } from './pipeline/request.ts';
export { VideoModel } from './pipeline/video-model.ts';
export { type ChatEndpoint, expandByChat } from './prompt/chat-expander.ts';
export { expandForWorlds } from './prompt/world-expander.ts';
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
export { joinFrames, sliceFrames, type Video, videoFrom } from './video/frames.ts';
export { MediaReader, readVideo } from './video/read.ts';
export { type WriteOptions, type WriteResult, writeVideo } from './video/write.ts';
