import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import { fitParameters } from '../storage/model-file.ts';
import { entryOf, openSafetensors, writeSafetensors } from '../storage/safetensors.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { entries } from '../tensor/tree.ts';
import { type HostState, stateTypes } from './step.ts';

/** A stored moment of a training: all that the steps after it depend on. */
export interface Checkpoint {
  readonly state: HostState;
  /** Steps done. */
  readonly step: number;
  /** Clips used. */
  readonly position: number;
}

/** What a checkpoint belongs to: resumed with anything else, the curve would be another. */
export interface RunIdentity {
  readonly kind: string;
  /** Digest of the recipe. */
  readonly recipe: string;
  /** Digest of the data, such as of the latent cache; empty for worlds rendered as they are needed. */
  readonly data: string;
  /** Digest of the model file whose weights it began with; empty for weights drawn from the recipe's seed. */
  readonly from: string;
  /** Processes that make a step together. Default 1. */
  readonly processes?: number;
}

const pattern = /^step-(\d{8})\.safetensors$/;

/**
 * Writes a checkpoint, wholly or not at all, then removes all but the newest `keep`.
 *
 * Noise and order of data depend on seed, step and position alone, so these are all the generator's state there is.
 * @throws UserError when it cannot be written.
 */
export async function writeCheckpoint(
  folder: string,
  { state, step, position }: Checkpoint,
  identity: RunIdentity,
  keep: number,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const stored = (entries(state) as [string, HostTensor][]).map(([name, tensor]) => entryOf(name, tensor));
  const metadata = new Map([
    ['format', 'checkpoint 1'],
    ['kind', identity.kind],
    ['recipe', identity.recipe],
    ['data', identity.data],
    ['from', identity.from],
    ['processes', String(identity.processes ?? 1)],
    ['step', String(step)],
    ['position', String(position)],
  ]);
  await writeSafetensors(join(folder, `step-${String(step).padStart(8, '0')}.safetensors`), stored, metadata);
  const old = (await checkpointsIn(folder)).slice(0, -keep);
  for (const name of old) await rm(join(folder, name), { force: true });
  await removeLeftovers(folder);
}

/** The newest checkpoint's path, or undefined when there is none. */
export async function newestCheckpoint(folder: string): Promise<string | undefined> {
  const name = (await checkpointsIn(folder)).at(-1);
  return name === undefined ? undefined : join(folder, name);
}

/**
 * Reads a checkpoint.
 * @param spec the model's parameter specification.
 * @throws UserError when it is damaged, or of another recipe, data or model.
 */
export async function readCheckpoint(path: string, spec: object, identity: RunIdentity): Promise<Checkpoint> {
  await using file = await openSafetensors(path);
  checkIdentity(path, file.metadata, identity);
  const values = new Map<string, HostTensor>();
  for (const name of file.tensors.keys()) values.set(name, await file.read(name));
  return {
    state: fitParameters(stateTypes(spec), values, path) as unknown as HostState,
    step: wholeNumber(file.metadata, 'step', path),
    position: wholeNumber(file.metadata, 'position', path),
  };
}

function checkIdentity(path: string, metadata: ReadonlyMap<string, string>, identity: RunIdentity): void {
  const refuse = (what: string, found: string, now: string | number) => {
    throw new UserError(
      `${path}: was made with another ${what} (${found}, now ${now}); resume with the same, or begin in another folder`,
    );
  };
  for (const name of ['kind', 'recipe', 'data', 'from'] as const) {
    const found = metadata.get(name) ?? '';
    if (found !== identity[name]) refuse(name, metadata.get(name) ?? 'none', identity[name]);
  }
  const processes = metadata.get('processes') ?? '1';
  const now = identity.processes ?? 1;
  if (processes !== String(now)) refuse('number of GPUs', processes, now);
}

async function checkpointsIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => pattern.test(name)).sort();
}

/** Temporary files of a process that was killed while it wrote. One process writes to a run's folder. */
async function removeLeftovers(folder: string): Promise<void> {
  const names = await readdir(folder);
  for (const name of names.filter((one) => one.startsWith('.zoetrope-') && one.endsWith('.tmp'))) {
    await rm(join(folder, name), { force: true });
  }
}

function wholeNumber(metadata: ReadonlyMap<string, string>, name: string, path: string): number {
  const value = Number(metadata.get(name));
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new UserError(`${path}: its ${name} is ${metadata.get(name)}; the checkpoint is damaged`);
  }
  return value;
}
