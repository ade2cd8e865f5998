import { type Extent, elementwiseOps, extents } from './space.ts';

/** Instructions of the fused operator; the order is that of `native/tile.h`. */
const opcodes = [
  'copy',
  ...elementwiseOps,
  'multiplyAdd',
  'multiplySubtract',
  'subtractProduct',
  'sum',
  'max',
  'dot',
] as const;

/** One of {@link opcodes}. */
export type Opcode = (typeof opcodes)[number];

/** A value that instructions read or write. */
export interface Register {
  readonly extent: Extent;
  /** The instruction that makes it, unless it is given. */
  readonly made?: { readonly op: Opcode; readonly operands: readonly Register[] };
}

/**
 * Numbers registers as the operator does, what is given first and results last, and writes the instructions with these
 * numbers. A register that nothing reads any more is used again, so that a tile needs few.
 */
export function numberRegisters(
  given: readonly Register[],
  code: readonly Register[],
  results: readonly Register[],
): { readonly registers: readonly number[]; readonly code: readonly number[] } {
  const lastReader = new Map<Register, Register>();
  for (const register of code)
    for (const operand of register.made?.operands ?? []) lastReader.set(operand, register);
  const places = new Map(given.map((register, index) => [register, index]));
  const sizes: Extent[] = given.map(({ extent }) => extent);
  const spare = new Map<Extent, number[]>();
  const isWork = (register: Register) => register.made !== undefined && !results.includes(register);
  for (const register of code) {
    const { extent } = register;
    if (isWork(register)) {
      const place = spare.get(extent)?.pop() ?? sizes.push(extent) - 1;
      places.set(register, place);
    }
    for (const operand of new Set(register.made?.operands)) {
      // Scalars are made before all tiles and stay.
      if (lastReader.get(operand) !== register || !isWork(operand) || operand.extent === extents.scalar)
        continue;
      spare.set(operand.extent, [...(spare.get(operand.extent) ?? []), places.get(operand) ?? 0]);
    }
  }
  for (const result of results) places.set(result, sizes.push(result.extent) - 1);
  const placeOf = (register: Register | undefined): number => {
    const place = register && places.get(register);
    if (place === undefined) throw new TypeError('an operand of an instruction has no register');
    return place;
  };
  return {
    registers: sizes,
    code: code.flatMap((register) => {
      const [a, b, c] = register.made?.operands ?? [];
      return [
        opcodes.indexOf(register.made?.op ?? 'copy'),
        register.extent,
        placeOf(register),
        placeOf(a),
        placeOf(b ?? a),
        placeOf(c ?? a),
      ];
    }),
  };
}
