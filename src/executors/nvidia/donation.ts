import { at } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';

/** Memory that a tensor is in: a graph input's, or a value that the program makes. */
export type Location =
  | { readonly kind: 'input'; readonly index: number }
  | { readonly kind: 'value'; readonly value: number };

/** Tensors by where they are; views share the location of what they view. */
export type Locations = Map<Tensor, Location>;

/** What the choice of donated memory needs to know of a step. */
export interface StepAccess {
  readonly reads: readonly Location[];
  /** Values that it makes, in the order of its outputs. */
  readonly writes: readonly number[];
  /** Pairs of a read and a write that may share memory. */
  readonly inPlace: readonly (readonly [read: number, write: number])[];
}

/** What becomes of the memory of one donated input. */
export interface Donation {
  /** The output that takes the memory over. */
  readonly output: number;
  /**
   * `same`: the output is the input. `inPlace`: the output's value is made in that memory. `copy`: the value is
   * copied there at the end, since something reads the input after or while the value is made.
   */
  readonly how: 'same' | 'inPlace' | 'copy';
}

/** A graph output as the choice sees it. */
export interface OutputAccess {
  readonly location: Location;
  readonly bytes: number;
}

/**
 * Chooses, for donated inputs, the outputs that take over their memory, so that the state of a training stays where it
 * is from step to step. States go in and come out in one order, so if the donated inputs have the sizes of a stretch of
 * the outputs, they are paired in that order; otherwise each takes the first output of its size that is left.
 * @param bytes of each graph input.
 */
export function planDonations(
  donated: readonly number[],
  bytes: readonly number[],
  outputs: readonly OutputAccess[],
  steps: readonly StepAccess[],
): ReadonlyMap<number, Donation> {
  const donations = new Map<number, Donation>();
  const movedValues = new Set<number>();
  // An input that is an output must stay as it is until it is copied.
  const kept = new Set(
    outputs.flatMap(({ location }) => (location.kind === 'input' ? [location.index] : [])),
  );
  const mayBeMadeIn = inPlaceRule(steps);
  for (const [input, output] of pairs(donated, bytes, outputs)) {
    const { location } = at(outputs, output);
    if (location.kind === 'input') {
      if (location.index === input) donations.set(input, { output, how: 'same' });
    } else if (!kept.has(input)) {
      const moves = !movedValues.has(location.value) && mayBeMadeIn(input, location.value);
      if (moves) movedValues.add(location.value);
      donations.set(input, { output, how: moves ? 'inPlace' : 'copy' });
    }
  }
  return donations;
}

/** Donated inputs and the outputs of their size. */
function pairs(
  donated: readonly number[],
  bytes: readonly number[],
  outputs: readonly OutputAccess[],
): readonly (readonly [input: number, output: number])[] {
  const fits = (input: number, output: number) => outputs[output]?.bytes === bytes[input];
  for (let shift = outputs.length - donated.length; shift >= 0; shift--) {
    if (donated.every((input, k) => fits(input, k + shift)))
      return donated.map((input, k) => [input, k + shift] as const);
  }
  const taken = new Set<number>();
  return donated.flatMap((input) => {
    const output = outputs.findIndex((_, index) => !taken.has(index) && fits(input, index));
    taken.add(output);
    return output < 0 ? [] : [[input, output] as const];
  });
}

/** Tells whether a value may be made in an input's memory: nothing else reads that while or after it is made. */
function inPlaceRule(steps: readonly StepAccess[]): (input: number, value: number) => boolean {
  const maker = new Map(steps.flatMap(({ writes }, step) => writes.map((value) => [value, step] as const)));
  const isMadeInParts = new Set<number>();
  const seen = new Set<number>();
  for (const { writes } of steps)
    for (const value of writes) (seen.has(value) ? isMadeInParts : seen).add(value);
  const lastRead = new Map<number, number>();
  steps.forEach(({ reads }, step) => {
    for (const read of reads) if (read.kind === 'input') lastRead.set(read.index, step);
  });
  return (input, value) => {
    if (isMadeInParts.has(value)) return false;
    const step = maker.get(value);
    const last = lastRead.get(input) ?? -1;
    return step !== undefined && (last < step || (last === step && isElementwise(steps[step], input, value)));
  };
}

/** Whether every read of an input by a step may share memory with a value that it makes. */
function isElementwise(step: StepAccess | undefined, input: number, value: number): boolean {
  if (step === undefined) return false;
  const write = step.writes.indexOf(value);
  return step.reads.every(
    (read, index) =>
      read.kind !== 'input' ||
      read.index !== input ||
      step.inPlace.some(([from, to]) => from === index && to === write),
  );
}

/** The location of a tensor that some stage has made. */
export function locationOf(locations: Locations, tensor: Tensor): Location {
  const location = locations.get(tensor);
  if (location === undefined) throw new Error(`${tensor.node.op} is used before a stage makes it`);
  return location;
}
