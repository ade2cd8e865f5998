import type { ParameterSpec } from '../nn/parameters.ts';
import { fileDigest } from '../storage/file-digest.ts';
import { fitParameters, readModel } from '../storage/model-file.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import type { TreeOf } from '../tensor/tree.ts';
import type { TrainingModel } from './step.ts';

/** Weights of an earlier training that a new one begins with; moments begin at zero all the same. */
export interface StartingWeights {
  /** In the form of the model's specification. */
  readonly parameters: TreeOf<object, HostTensor>;
  /** SHA-256 of the file they came from. */
  readonly digest: string;
}

/**
 * Reads the weights of a model file to begin with.
 * @throws UserError when the file cannot be read, or its model is another or of other sizes.
 */
export async function readStartingWeights(
  path: string,
  { kind, spec }: Pick<TrainingModel, 'kind' | 'spec'>,
): Promise<StartingWeights> {
  const { parameters } = await readModel(path, kind);
  const fitted = fitParameters(spec as Record<string, ParameterSpec>, parameters, path);
  return { parameters: fitted, digest: await fileDigest(path) };
}
