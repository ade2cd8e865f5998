import { ProtobufWriter } from './protobuf.ts';

/** Element types of ONNX tensors that we write; the numbers are TensorProto.DataType. */
export const onnxTypes = { float: 1, int32: 6, int64: 7, bool: 9, float16: 10, bfloat16: 16 } as const;

/** Name of an ONNX element type. */
export type OnnxType = keyof typeof onnxTypes;

/** An attribute of an ONNX node: integers as numbers, strings, lists of integers, or marked floats. */
export type OnnxAttribute =
  | number
  | string
  | readonly number[]
  | { readonly float: number }
  | { readonly floats: readonly number[] };

/** Operator set of the models that we write; Attention, RMSNormalization and RotaryEmbedding appear in it. */
const opset = 23;
/** File format version that goes with {@link opset}. */
const irVersion = 10;

/**
 * Builds an ONNX model in memory. Values are names; each method returns the name of what it added.
 * Field numbers are those of onnx.proto.
 */
export class OnnxModel {
  private readonly nodes: ProtobufWriter[] = [];
  private readonly inputs: ProtobufWriter[] = [];
  private readonly outputs: ProtobufWriter[] = [];
  private readonly initializers: ProtobufWriter[] = [];
  private readonly constants = new Map<string, string>();
  private readonly made = new Set<string>();
  private readonly domains = new Set<string>();
  private nextName = 0;

  /** Whether a node makes the value `name`; inputs and constants are there without one. */
  isMade(name: string): boolean {
    return this.made.has(name);
  }

  /** Declares a model input; a size given as a name is known only when the model runs. */
  input(name: string, type: OnnxType, shape: readonly (number | string)[]): string {
    this.inputs.push(valueInfo(name, type, shape));
    return name;
  }

  /** Declares a value, made by a node, as a model output. */
  output(name: string, type: OnnxType, shape: readonly (number | string)[]): void {
    this.outputs.push(valueInfo(name, type, shape));
  }

  /** Values known now; equal ones are stored once. */
  constant(
    type: 'float' | 'int32' | 'int64' | 'bool',
    shape: readonly number[],
    values: readonly number[],
  ): string {
    const key = `${type}[${shape}]${values.map((value) => (Object.is(value, -0) ? '-0' : value))}`;
    const known = this.constants.get(key);
    if (known !== undefined) return known;
    const name = this.name('c');
    const tensor = new ProtobufWriter();
    for (const size of shape) tensor.int(1, size);
    this.initializers.push(tensor.int(2, onnxTypes[type]).string(8, name).bytes(9, encode(type, values)));
    this.constants.set(key, name);
    return name;
  }

  /**
   * Adds a node with `results` outputs (default 1).
   * @param outputs their names; default new ones.
   * @param domain `com.microsoft` for ONNX Runtime's own operators, `zoetrope` for ours; default the standard ones.
   */
  node(
    type: string,
    operands: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
    { results = 1, domain = '', outputs }: { results?: number; domain?: string; outputs?: string[] } = {},
  ): string[] {
    const names = outputs ?? Array.from({ length: results }, () => this.name('v'));
    const node = new ProtobufWriter();
    for (const operand of operands) node.string(1, operand);
    for (const name of names) {
      node.string(2, name);
      this.made.add(name);
    }
    node.string(4, type);
    for (const [name, value] of Object.entries(attributes)) node.message(5, attribute(name, value));
    if (domain !== '') {
      node.string(7, domain);
      this.domains.add(domain);
    }
    this.nodes.push(node);
    return names;
  }

  /** The model as a serialised ModelProto. */
  finish(): Uint8Array<ArrayBuffer> {
    const graph = new ProtobufWriter();
    for (const node of this.nodes) graph.message(1, node);
    graph.string(2, 'zoetrope');
    for (const tensor of this.initializers) graph.message(5, tensor);
    for (const value of this.inputs) graph.message(11, value);
    for (const value of this.outputs) graph.message(12, value);
    const model = new ProtobufWriter().int(1, irVersion).string(2, 'zoetrope').message(7, graph);
    model.message(8, new ProtobufWriter().string(1, '').int(2, opset));
    for (const domain of this.domains) model.message(8, new ProtobufWriter().string(1, domain).int(2, 1));
    return model.finish();
  }

  private name(prefix: string): string {
    return `${prefix}${this.nextName++}`;
  }
}

/** A model that gives its input `value`, of any size, back as `copy`. */
export function copierModel(type: OnnxType, rank: number): Uint8Array<ArrayBuffer> {
  const model = new OnnxModel();
  const shape = Array.from({ length: rank }, (_, axis) => `d${axis}`);
  model.input('value', type, shape);
  model.node('Identity', ['value'], {}, { outputs: ['copy'] });
  model.output('copy', type, shape);
  return model.finish();
}

function valueInfo(name: string, type: OnnxType, shape: readonly (number | string)[]): ProtobufWriter {
  const dimensions = new ProtobufWriter();
  for (const size of shape) {
    const dimension = new ProtobufWriter();
    dimensions.message(1, typeof size === 'number' ? dimension.int(1, size) : dimension.string(2, size));
  }
  const tensorType = new ProtobufWriter().int(1, onnxTypes[type]).message(2, dimensions);
  return new ProtobufWriter().string(1, name).message(2, new ProtobufWriter().message(1, tensorType));
}

function attribute(name: string, value: OnnxAttribute): ProtobufWriter {
  const writer = new ProtobufWriter().string(1, name);
  if (typeof value === 'number') return writer.int(3, value).int(20, 2);
  if (typeof value === 'string') return writer.string(4, value).int(20, 3);
  if ('float' in value) return writer.float(2, value.float).int(20, 1);
  if ('floats' in value) {
    for (const item of value.floats) writer.float(7, item);
    return writer.int(20, 6);
  }
  for (const item of value) writer.int(8, item);
  return writer.int(20, 7);
}

function encode(type: 'float' | 'int32' | 'int64' | 'bool', values: readonly number[]): Uint8Array {
  switch (type) {
    case 'float':
      return new Uint8Array(Float32Array.from(values).buffer);
    case 'int32':
      return new Uint8Array(Int32Array.from(values).buffer);
    case 'int64':
      return new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    case 'bool':
      return Uint8Array.from(values);
  }
}
