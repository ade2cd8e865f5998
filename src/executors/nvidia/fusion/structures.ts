import { at, formatType } from '../../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Storage } from '../storage.ts';

/** What some expressions have in common with others that are computed alike. */
export interface Structure {
  /** Equal for expressions of the same operations on tensors of the same types, shared alike. */
  readonly key: string;
  /** All their tensors: those of equal keys stand at the same places. */
  readonly tensors: readonly Tensor[];
}

/** The tensor of one structure in the place of each of another of the same key; others are made by `other`. */
export function renaming(
  from: Structure,
  to: Structure,
  other: (tensor: Tensor) => Tensor = unknown,
): (tensor: Tensor) => Tensor {
  const names = new Map(from.tensors.map((tensor, place) => [tensor, at(to.tensors, place)]));
  return (tensor) => {
    const name = names.get(tensor) ?? other(tensor);
    names.set(tensor, name);
    return name;
  };
}

function unknown({ node }: Tensor): never {
  throw new Error(`a result of ${node.op} is not part of the structure that is read`);
}

/**
 * Finds expressions that differ only in the tensors that they read, as those of the layers of a model do: what was found
 * out for one is true for all.
 */
export class Structures {
  private readonly storage: Storage;
  private readonly numbers = new Map<string, number>();
  private readonly types = new Map<Tensor, number>();
  private readonly operations = new Map<Tensor, number>();
  private readonly attributes = new Map<Node['attributes'], string>();

  constructor(storage: Storage) {
    this.storage = storage;
  }

  /**
   * The structure of some tensors.
   * @param isComputed whether a tensor is part of the expressions, and not read by them.
   */
  of(tensors: readonly Tensor[], isComputed: (tensor: Tensor) => boolean): Structure {
    const places = new Map<Tensor, number>();
    const parts: (number | string)[] = [];
    const visit = (tensor: Tensor): void => {
      const known = places.get(tensor);
      if (known !== undefined) {
        parts.push(known);
        return;
      }
      const isInside = isComputed(tensor);
      // Operands come before what is made of them: each part says how many of those before it are its own.
      if (isInside) for (const operand of operandsOf(tensor.node)) visit(operand);
      places.set(tensor, places.size);
      parts.push(isInside ? `c${this.operationOf(tensor)}` : `r${this.typeOf(tensor)}`);
    };
    for (const tensor of tensors) visit(tensor);
    return { key: parts.join(), tensors: [...places.keys()] };
  }

  private operationOf(tensor: Tensor): number {
    const known = this.operations.get(tensor);
    if (known !== undefined) return known;
    const { node, index } = tensor;
    const text = `${node.op} ${operandsOf(node).length} ${index} ${this.attributesOf(node)} ${this.typeOf(tensor)}`;
    const number = this.numberOf(text);
    this.operations.set(tensor, number);
    return number;
  }

  /** Shape, dtype and storage of a tensor, and the value of a constant that is written as a number. */
  private typeOf(tensor: Tensor): number {
    const known = this.types.get(tensor);
    if (known !== undefined) return known;
    const { node } = tensor;
    const [value, ...others] = node.op === 'constant' ? node.attributes.values : [];
    const constant = value === undefined || others.length > 0 ? '' : Object.is(value, -0) ? '-0' : `${value}`;
    const number = this.numberOf(`${formatType(tensor)} ${this.storage(tensor)} ${constant}`);
    this.types.set(tensor, number);
    return number;
  }

  private attributesOf({ attributes }: Node): string {
    const known = this.attributes.get(attributes);
    if (known !== undefined) return known;
    const text = JSON.stringify(attributes);
    this.attributes.set(attributes, text);
    return text;
  }

  private numberOf(text: string): number {
    const known = this.numbers.get(text);
    if (known !== undefined) return known;
    this.numbers.set(text, this.numbers.size);
    return this.numbers.size - 1;
  }
}
