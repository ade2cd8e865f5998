import type { TensorMap } from '../../tensor/rewrite.ts';
import type { Tensor } from '../../tensor/tensor.ts';

/** Memory that a tensor is in: a graph input's, or a value that the program makes. */
export type Location =
  | { readonly kind: 'input'; readonly index: number }
  | { readonly kind: 'value'; readonly value: number };

/** Tensors by where they are; views share the location of what they view. */
export type Locations = TensorMap<Location>;

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
 * is from step to step: an output made from the input elementwise, else the first of the same size.
 * @param bytes of each graph input.
 */
export function planDonations(
  donated: readonly number[],
  bytes: readonly number[],
  outputs: readonly OutputAccess[],
  steps: readonly StepAccess[],
): ReadonlyMap<number, Donation> {
  const donations = new Map<number, Donation>();
  const takenOutputs = new Set<number>();
  const takenValues = new Set<number>();
  const give = (input: number, output: number, how: Donation['how']) => {
    donations.set(input, { output, how });
    takenOutputs.add(output);
    const { location } = outputs[output] ?? {};
    if (location?.kind === 'value') takenValues.add(location.value);
  };
  const maker = new Map(steps.flatMap(({ writes }, step) => writes.map((value) => [value, step] as const)));
  const lastRead = new Map<number, number>();
  steps.forEach(({ reads }, step) => {
    for (const read of reads) if (read.kind === 'input') lastRead.set(read.index, step);
  });

  const mayBeMadeIn = (input: number, value: number): boolean => {
    const step = maker.get(value);
    if (step === undefined) return false;
    const last = lastRead.get(input) ?? -1;
    return last < step || (last === step && isElementwise(steps[step], input, value));
  };
  /** Free outputs of the input's size; a value in several outputs can move only once. */
  const candidates = (input: number) =>
    outputs.flatMap((output, index) => {
      const isFree = !takenOutputs.has(index) && output.bytes === bytes[input];
      return isFree && !(output.location.kind === 'value' && takenValues.has(output.location.value))
        ? [{ index, location: output.location }]
        : [];
    });
  const rounds: ((input: number) => Donation | undefined)[] = [
    (input) => {
      const same = candidates(input).find(
        ({ location }) => location.kind === 'input' && location.index === input,
      );
      return same && { output: same.index, how: 'same' };
    },
    (input) => {
      const made = candidates(input).find(({ location }) => {
        if (location.kind !== 'value') return false;
        const step = maker.get(location.value);
        return step !== undefined && lastRead.get(input) === step && mayBeMadeIn(input, location.value);
      });
      return made && { output: made.index, how: 'inPlace' };
    },
    // States go in and come out in one order, so the first output of the size is most likely the same weight.
    (input) => {
      const first = candidates(input).find(({ location }) => location.kind === 'value');
      if (first?.location.kind !== 'value') return undefined;
      return { output: first.index, how: mayBeMadeIn(input, first.location.value) ? 'inPlace' : 'copy' };
    },
  ];
  for (const choose of rounds) {
    for (const input of donated) {
      const donation = donations.has(input) ? undefined : choose(input);
      if (donation !== undefined) give(input, donation.output, donation.how);
    }
  }
  return donations;
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
