import { UserError } from '../errors.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { formatType, sameShape, type TensorType } from '../tensor/shape.ts';
import { entries, mapTree, type TreeOf } from '../tensor/tree.ts';
import { entryOf, openSafetensors, type SafetensorsFile, writeSafetensors } from './safetensors.ts';

/** What a model file can hold. */
export const modelKinds = ['autoencoder', 'transformer'] as const;
/** One of {@link modelKinds}. */
export type ModelKind = (typeof modelKinds)[number];

/** A model to be stored in one file. */
export interface ModelToWrite {
  readonly kind: ModelKind;
  /** The model's configuration: plain data, stored as JSON. */
  readonly config: object;
  /** A tree of host tensors; their paths become their names in the file. */
  readonly parameters: object;
  /** Where the weights come from, such as `commit`, `command`, `recipe`, `date`, `data`, `steps`. Default: nothing. */
  readonly provenance?: Readonly<Record<string, string>>;
  /** How values are stored: `f16` halves the file and rounds to nearest. Default `f32`. */
  readonly dtype?: 'f32' | 'f16';
}

/** A model as a file gives it. */
export interface StoredModel {
  /** The file it came from, for messages. */
  readonly path: string;
  /** Plain data, not checked: give it to the model's own check. */
  readonly config: unknown;
  /** Every parameter by path, in f32; {@link fitParameters} makes the model's tree of it. */
  readonly parameters: ReadonlyMap<string, HostTensor>;
  readonly provenance: Readonly<Record<string, string>>;
}

const formatVersion = '1';

/**
 * Writes a model with its configuration as one safetensors file, wholly or not at all.
 *
 * The metadata holds `format` (the version of this layout), `kind`, `config` and `provenance` (both JSON).
 * @throws UserError when the file cannot be written.
 */
export async function writeModel(path: string, model: ModelToWrite): Promise<void> {
  const { kind, config, parameters, provenance = {}, dtype = 'f32' } = model;
  const stored = (entries(parameters) as [string, HostTensor][]).map(([name, tensor]) =>
    entryOf(name, fromFloat32(dtype, tensor.shape, toFloat32(tensor))),
  );
  const metadata = new Map([
    ['format', formatVersion],
    ['kind', kind],
    ['config', JSON.stringify(config)],
    ['provenance', JSON.stringify(provenance)],
  ]);
  await writeSafetensors(path, stored, metadata);
}

/**
 * Reads a model file; 16-bit weights are widened to f32.
 * @throws UserError when it is missing or damaged, no model file, or a model of another kind.
 */
export async function readModel(path: string, kind: ModelKind): Promise<StoredModel> {
  await using file = await openSafetensors(path);
  const found = file.metadata.get('kind');
  if (found === undefined || file.metadata.get('format') === undefined) {
    throw new UserError(`${path}: holds tensors but no Zoetrope model; give a file that train wrote`);
  }
  if (file.metadata.get('format') !== formatVersion) {
    const version = file.metadata.get('format');
    throw new UserError(
      `${path}: is of format ${version}, this program reads ${formatVersion}; use the program it was made with`,
    );
  }
  if (found !== kind)
    throw new UserError(`${path}: holds a model of kind ${found}; give one of kind ${kind}`);
  const parameters = new Map<string, HostTensor>();
  for (const name of file.tensors.keys()) {
    const tensor = await file.read(name);
    parameters.set(name, fromFloat32('f32', tensor.shape, toFloat32(tensor)));
  }
  return {
    path,
    config: parsed(file, 'config'),
    parameters,
    provenance: parsed(file, 'provenance') as Readonly<Record<string, string>>,
  };
}

/**
 * The tree of a specification with values found by path.
 *
 * @param spec tree whose leaves are the types expected, such as a model's parameter specification.
 * @param found values by path, as {@link readModel} gives them.
 * @param path the file they come from, for messages.
 * @throws UserError naming the first parameter that is missing, of another shape or dtype, or more than expected.
 */
export function fitParameters<Spec extends object>(
  spec: Spec,
  found: ReadonlyMap<string, HostTensor>,
  path: string,
): TreeOf<Spec, HostTensor> {
  const expected = entries(spec) as [string, TensorType][];
  const fitted = mapTree(spec, (leaf, name) => {
    const type = leaf as TensorType;
    const tensor = found.get(name);
    if (tensor === undefined) {
      throw new UserError(
        `${path}: parameter ${name} is missing; expected ${formatType(type)}, the file has ${found.size} others`,
      );
    }
    if (tensor.dtype !== type.dtype || !sameShape(tensor.shape, type.shape)) {
      throw new UserError(
        `${path}: parameter ${name} is ${formatType(tensor)}, expected ${formatType(type)}; the file does not fit its configuration`,
      );
    }
    return tensor;
  });
  if (found.size > expected.length) {
    const known = new Set(expected.map(([name]) => name));
    const odd = [...found.keys()].find((name) => !known.has(name));
    throw new UserError(
      `${path}: parameter ${odd} is in the file but not in the model; the file does not fit its configuration`,
    );
  }
  return fitted;
}

function parsed(file: SafetensorsFile, key: string): unknown {
  try {
    return JSON.parse(file.metadata.get(key) ?? '{}');
  } catch {
    throw new UserError(`${file.path}: its ${key} is no JSON; the file is damaged`);
  }
}
