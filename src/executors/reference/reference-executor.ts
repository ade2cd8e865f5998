import type { DType } from '../../tensor/dtype.ts';
import type { HostTensor } from '../../tensor/host-tensor.ts';
import { at, formatType, type Shape } from '../../tensor/shape.ts';
import { type Graph, type Node, type NodeOf, operandsOf } from '../../tensor/tensor.ts';
import { verify } from '../../tensor/verify.ts';
import {
  type CompileOptions,
  checkInputs,
  type DeviceBuffer,
  type Executable,
  type Executor,
  ExecutorError,
} from '../executor.ts';
import type { ProcessGroup } from '../process-group.ts';
import { collective, isCollective } from './collectives.ts';
import { type Kernel, kernels, type StructuralOp } from './kernels.ts';
import { fromHost, rounded, toHost, type Values } from './values.ts';

/** The oracle: runs every operation in float64 with plain loops. Slow; for small shapes and for tests. */
export class ReferenceExecutor implements Executor {
  readonly name = 'reference';
  private readonly processes: ProcessGroup | undefined;
  private last: Promise<unknown> = Promise.resolve();

  /** @param processes that collectives are of. Default: this one alone. */
  constructor(processes?: ProcessGroup) {
    this.processes = processes;
  }

  async compile(graph: Graph, { donate = [] }: CompileOptions = {}): Promise<Executable> {
    verify(graph, 'reference executor');
    return { graph, donated: new Set(donate), [Symbol.dispose]() {} };
  }

  upload(tensor: HostTensor): DeviceBuffer {
    return new ReferenceBuffer(fromHost(tensor));
  }

  async download(buffer: DeviceBuffer): Promise<HostTensor> {
    return toHost(valuesOf(buffer));
  }

  /** The unrounded values of a buffer, for finite differences. */
  peek(buffer: DeviceBuffer): Float64Array {
    return valuesOf(buffer).data;
  }

  async run(executable: Executable, inputs: readonly DeviceBuffer[]): Promise<readonly DeviceBuffer[]> {
    checkInputs(executable, inputs);
    const values = inputs.map(valuesOf);
    for (const index of executable.donated) at(inputs, index)[Symbol.dispose]();
    // One after the other: processes meet in the order of their collectives.
    const running = this.last.then(() => evaluate(executable.graph, values, this.processes));
    this.last = running.catch(() => undefined);
    return (await running).map((output) => new ReferenceBuffer(output));
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

class ReferenceBuffer implements DeviceBuffer {
  readonly shape: Shape;
  readonly dtype: DType;
  values: Values | undefined;

  constructor(values: Values) {
    this.shape = values.shape;
    this.dtype = values.dtype;
    this.values = values;
  }

  get disposed(): boolean {
    return this.values === undefined;
  }

  [Symbol.dispose](): void {
    this.values = undefined;
  }
}

function valuesOf(buffer: DeviceBuffer): Values {
  if (!(buffer instanceof ReferenceBuffer))
    throw new ExecutorError('reference: the buffer belongs to another executor');
  if (buffer.values === undefined) throw new ExecutorError(`reference: ${formatType(buffer)} was disposed`);
  return buffer.values;
}

async function evaluate(
  graph: Graph,
  inputs: readonly Values[],
  processes: ProcessGroup | undefined,
): Promise<Values[]> {
  const results = new Map<Node, readonly Values[]>();
  graph.inputs.forEach(({ node }, index) => {
    results.set(node, [at(inputs, index)]);
  });
  for (const node of graph.nodes) {
    if (node.op === 'input') continue;
    const operands = operandsOf(node).map((operand) => at(computed(results, operand.node), operand.index));
    if (node.op === 'call') results.set(node, await evaluate(node.attributes.graph, operands, processes));
    else if (processes !== undefined && isCollective(node))
      results.set(node, [await collective(node, at(operands, 0), processes)]);
    else results.set(node, compute(node, operands));
  }
  return graph.outputs.map((output) => at(computed(results, output.node), output.index));
}

function compute<K extends Exclude<Node['op'], StructuralOp>>(
  node: NodeOf<K>,
  operands: readonly Values[],
): Values[] {
  const kernel: Kernel<K> = kernels[node.op];
  // Operands are in the order and number of the node's own, which its shape rule has checked.
  const arrays = kernel(
    operands as Parameters<Kernel<K>>[0],
    node.attributes as Parameters<Kernel<K>>[1],
    node.results,
  );
  return arrays.map((data, index) => rounded(at(node.results, index), data));
}

function computed(results: ReadonlyMap<Node, readonly Values[]>, node: Node): readonly Values[] {
  const values = results.get(node);
  if (values === undefined) throw new ExecutorError(`reference: ${node.op} was not computed before its use`);
  return values;
}
