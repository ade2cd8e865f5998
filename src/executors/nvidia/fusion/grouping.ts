import { bytesPerElement } from '../../../tensor/dtype.ts';
import { addTo } from '../../../tensor/shape.ts';
import type { Graph, Node, Tensor } from '../../../tensor/tensor.ts';
import type { Stage } from '../kernel.ts';
import { storedBytes } from '../storage.ts';
import { isFixed, type Read, type RowSpace } from './row-writer.ts';
import { renaming, type Structure, type Structures } from './structures.ts';
import { type FusionContext, isWithin, readsOf, type Unit } from './units.ts';

/** One step of the program to be: stages that are as they are, or units that one kernel computes. */
export interface Item {
  units: readonly Unit[];
  readonly stages: readonly Stage[];
  reads: ReadonlySet<Tensor>;
  /** Tensors that it makes, wholly or in part. */
  makes: ReadonlySet<Tensor>;
  space: RowSpace;
  pinned: number | undefined;
  /** Largest number, in the graph, of the nodes that it makes. */
  readonly last: number;
  /** Length of the longest way to it: what depends on it is deeper. */
  depth: number;
  /** The item that it became part of. */
  into: Item | undefined;
  /** What made what it reads when it was added, or is part of what did. */
  readonly sources: readonly Item[];
  /** The last search of {@link Grouping} that came to it. */
  search: number;
  /** How it reads memory, by the rows that it is computed over. */
  readonly known: Map<string, ItemReads>;
}

/** A read and its place: equal for equal positions in one tensor, in all kernels over the same rows. */
interface PlacedRead extends Read {
  readonly place: string;
}

/** Reads of an item: all, and the last of each place. */
interface ItemReads {
  readonly all: readonly PlacedRead[];
  readonly byPlace: ReadonlyMap<string, PlacedRead>;
}

/** Tensors that one fused kernel reads and writes at most. */
const mostTensors = 40;

/** The same of a kernel of {@link totalStages}: pointers of 4 KiB of parameters. */
const mostTotals = 256;

/**
 * Nodes that lie between two which one kernel computes, at most. Over longer ways joining saves a read and costs memory, since
 * what is made early waits for long: a block that is computed again in the backward pass would be computed again at once.
 */
export const furthest = 400;

/**
 * Joins units into groups, each a kernel: from first to last, each joins the groups with which it shares most bytes,
 * either those that make what it reads or those that read what it reads at the same place. What a group makes for
 * itself is never in memory.
 */
export class Grouping {
  readonly items: Item[] = [];
  private readonly numbers: ReadonlyMap<Node, number>;
  private readonly context: FusionContext;
  private readonly canEmit: (item: Item) => boolean;
  private readonly totals: Item[] = [];
  private readonly makers = new Map<Tensor, Item[]>();
  private readonly readers = new Map<Tensor, Item[]>();
  private readonly structures: Structures;
  private searches = 0;
  private readonly alike = new Map<string, { readonly reads: readonly Read[]; readonly of: Structure }>();
  private readonly known = new Map<Unit, Map<string, readonly PlacedRead[]>>();

  /** @param canEmit whether a group has a kernel. */
  constructor(
    graph: Graph,
    context: FusionContext,
    structures: Structures,
    canEmit: (item: Item) => boolean,
  ) {
    this.structures = structures;
    this.numbers = new Map(graph.nodes.map((node, number) => [node, number]));
    this.context = context;
    this.canEmit = canEmit;
  }

  /** Adds stages that are as they are. */
  addStages(stages: readonly Stage[], reads: readonly Tensor[], makes: readonly Tensor[]): void {
    const item = this.newItem([], stages, reads, makes, { rows: 1, length: 1 }, undefined);
    this.enter(item);
  }

  /** Adds a unit, and joins it with the groups before it. */
  addUnit(unit: Unit): void {
    if (unit.kind === 'total') {
      this.addTotal(unit);
      return;
    }
    const length = unit.pinned ?? unit.natural;
    const space = { rows: unit.count / length, length };
    const reads = this.reads(unit, space).map(({ tensor }) => tensor);
    const item = this.newItem([unit], [], reads, [unit.output], space, unit.pinned);
    this.enter(item);
    let current = item;
    const candidates = new Set<Item>();
    for (const tensor of item.reads)
      for (const others of [this.makers.get(tensor), this.readers.get(tensor)])
        for (const other of others ?? []) {
          const whole = find(other);
          if (this.isNear(whole, item)) candidates.add(whole);
        }
    candidates.delete(item);
    const ranked = [...candidates]
      .map((other) => ({ other, saved: this.saved(other, item) }))
      .filter(({ saved }) => saved > 0)
      .sort((a, b) => b.saved - a.saved || b.other.last - a.other.last);
    for (const { other } of ranked) current = this.merge(find(other), find(current)) ?? current;
  }

  private isNear(other: Item, item: Item): boolean {
    return other.units.length > 0 && !isTotal(other) && item.last - other.last <= furthest;
  }

  /** Sums of whole tensors share launches, whatever they are sums of. */
  private addTotal(unit: Unit): void {
    const space = { rows: 1, length: unit.count };
    const reads = this.reads(unit, space).map(({ tensor }) => tensor);
    const item = this.newItem([unit], [], reads, [unit.output], space, undefined);
    this.enter(item);
    for (const [index, other] of this.totals.entries()) {
      const isApart = ![...item.reads].some((tensor) => other.makes.has(tensor));
      const fits = other.reads.size + item.reads.size + other.units.length < mostTotals;
      if (!isApart || !fits || this.leads(other, item) || this.leads(item, other)) continue;
      const merged = joined(other, item, space, undefined);
      this.replace(other, item, merged);
      this.totals[index] = merged;
      return;
    }
    this.totals.push(item);
  }

  /** The items that are left, operands first. */
  ordered(): readonly Item[] {
    const done = new Set<Item>();
    const order: Item[] = [];
    const left = this.items.filter((item) => item.into === undefined).sort((a, b) => a.last - b.last);
    for (const root of left) {
      const pending: { item: Item; before: Item[] }[] = [{ item: root, before: before(root) }];
      while (pending.length > 0) {
        const top = pending[pending.length - 1];
        if (top === undefined) break;
        const next = done.has(top.item) ? undefined : top.before.pop();
        if (next !== undefined) {
          if (!done.has(next)) pending.push({ item: next, before: before(next) });
          continue;
        }
        pending.pop();
        if (!done.has(top.item)) order.push(top.item);
        done.add(top.item);
      }
    }
    return order;
  }

  /** Whether anything but its maker reads a tensor from memory. */
  isReadElsewhere(tensor: Tensor, maker: Item): boolean {
    return (this.readers.get(tensor) ?? []).some((reader) => find(reader) !== maker);
  }

  /** Reads of a unit over some rows. */
  private reads(unit: Unit, space: RowSpace): readonly PlacedRead[] {
    const own = this.known.get(unit) ?? new Map<string, readonly PlacedRead[]>();
    this.known.set(unit, own);
    const key = `${space.rows}x${space.length}`;
    const reads = own.get(key) ?? this.newReads(unit, space, key);
    own.set(key, reads);
    return reads;
  }

  /** The same, found out once for all units that are computed alike. */
  private newReads(unit: Unit, space: RowSpace, rows: string): readonly PlacedRead[] {
    const of = this.structures.of([unit.expression], isWithin(unit, this.context));
    const key = `${rows} ${of.key}`;
    const known = this.alike.get(key) ?? { reads: readsOf(unit, space, this.context), of };
    this.alike.set(key, known);
    const tensorOf = renaming(known.of, of);
    return known.reads.map((read) => {
      const tensor = tensorOf(read.tensor);
      return { ...read, tensor, place: `${tensor.node.id}.${tensor.index}@${read.offset}` };
    });
  }

  /** Reads of all units of an item. */
  private readsIn(item: Item, space: RowSpace): ItemReads {
    const key = `${space.rows}x${space.length}`;
    const known = item.known.get(key);
    if (known !== undefined) return known;
    const all = item.units.flatMap((unit) => this.reads(unit, space));
    const found = { all, byPlace: new Map(all.map((read) => [read.place, read])) };
    item.known.set(key, found);
    return found;
  }

  private newItem(
    units: readonly Unit[],
    stages: readonly Stage[],
    reads: readonly Tensor[],
    makes: readonly Tensor[],
    space: RowSpace,
    pinned: number | undefined,
  ): Item {
    const last = Math.max(0, ...makes.map(({ node }) => this.numbers.get(node) ?? 0));
    const item: Item = {
      units,
      stages,
      reads: new Set(reads),
      makes: new Set(makes),
      space,
      pinned,
      last,
      depth: 0,
      into: undefined,
      sources: [...new Set(reads.flatMap((tensor) => this.makers.get(tensor) ?? []).map(find))],
      search: 0,
      known: new Map(),
    };
    item.depth = 1 + Math.max(0, ...item.sources.map(({ depth }) => depth));
    this.items.push(item);
    return item;
  }

  private enter(item: Item): void {
    for (const tensor of item.reads) addTo(this.readers, tensor, item);
    for (const tensor of item.makes) addTo(this.makers, tensor, item);
  }

  /** Rows over which two groups can be computed together. */
  private commonSpace(a: Item, b: Item): RowSpace | undefined {
    const length = a.pinned ?? b.pinned ?? a.space.length;
    if ((b.pinned ?? length) !== length) return undefined;
    const [ofA, ofB] = [a.space.rows * a.space.length, b.space.rows * b.space.length];
    const [small, large] = ofA <= ofB ? [a, b] : [b, a];
    const [few, many] = [Math.min(ofA, ofB), Math.max(ofA, ofB)];
    const rows = many / length;
    if (!Number.isInteger(rows)) return undefined;
    // Values of rows, such as the deviation that a norm divides by.
    const isNarrow =
      few === rows &&
      length > 1 &&
      large.pinned !== undefined &&
      small.units.every(({ kind }) => kind === 'pointwise');
    return few === many || isNarrow ? { rows, length } : undefined;
  }

  /** Bytes that need not move when two groups are one; 0 when they cannot be. */
  private saved(a: Item, b: Item): number {
    const space = this.commonSpace(a, b);
    if (space === undefined) return 0;
    const [ofA, ofB] = [this.readsIn(a, space), this.readsIn(b, space)];
    const { storage } = this.context;
    const walked = (tensor: Tensor) => bytesPerElement(storage(tensor)) * space.rows * space.length;
    let saved = 0;
    for (const [reads, other] of [
      [ofA, b],
      [ofB, a],
    ] as const) {
      for (const read of reads.all) {
        if (!other.makes.has(read.tensor)) continue;
        if (!isInRow(read, other)) return 0;
        saved += storedBytes(read.tensor, storage);
      }
    }
    for (const [place, read] of ofB.byPlace)
      if (
        ofA.byPlace.has(place) &&
        (read.kind !== 'other' || isFixed(read.offset)) &&
        !a.makes.has(read.tensor)
      )
        saved += Math.min(storedBytes(read.tensor, storage), walked(read.tensor));
    return saved;
  }

  private merge(a: Item, b: Item): Item | undefined {
    if (a === b) return undefined;
    const space = this.commonSpace(a, b);
    if (space === undefined || this.saved(a, b) === 0 || this.leads(a, b) || this.leads(b, a))
      return undefined;
    const merged = joined(a, b, space, a.pinned ?? b.pinned);
    if (merged.reads.size + merged.makes.size > mostTensors || !this.canEmit(merged)) return undefined;
    this.replace(a, b, merged);
    return merged;
  }

  private replace(a: Item, b: Item, merged: Item): void {
    this.items.push(merged);
    a.into = merged;
    b.into = merged;
    this.deepen(merged);
  }

  /** Puts what depends on an item below it. */
  private deepen(item: Item): void {
    const pending = [item];
    for (let top = pending.pop(); top !== undefined; top = pending.pop()) {
      for (const tensor of top.makes)
        for (const reader of this.readers.get(tensor) ?? []) {
          const below = find(reader);
          if (below === top || below.depth > top.depth) continue;
          below.depth = top.depth + 1;
          pending.push(below);
        }
    }
  }

  /** Whether `to` depends on `from` through others. */
  private leads(from: Item, to: Item): boolean {
    const search = ++this.searches;
    const pending = [to];
    for (let item = pending.pop(); item !== undefined; item = pending.pop()) {
      for (const source of item.sources) {
        const next = find(source);
        if (next === from && item !== to) return true;
        // What is between them is deeper than the one and less deep than the other.
        if (next.depth <= from.depth || next.depth >= to.depth || next.search === search) continue;
        next.search = search;
        pending.push(next);
      }
    }
    return false;
  }
}

/** Two items as one. */
function joined(a: Item, b: Item, space: RowSpace, pinned: number | undefined): Item {
  return {
    units: [...a.units, ...b.units],
    stages: [],
    reads: new Set([...a.reads, ...b.reads]),
    makes: new Set([...a.makes, ...b.makes]),
    space,
    pinned,
    last: Math.max(a.last, b.last),
    depth: Math.max(a.depth, b.depth),
    into: undefined,
    sources: [...new Set([...a.sources, ...b.sources].map(find))],
    search: 0,
    known: new Map(),
  };
}

/** The items that make what an item reads. */
function before(item: Item): Item[] {
  const found = new Set(item.sources.map(find));
  found.delete(item);
  return [...found];
}

function isTotal({ units }: Item): boolean {
  return units[0]?.kind === 'total';
}

/** What an item became part of. */
export function find(item: Item): Item {
  let top = item;
  while (top.into !== undefined) top = top.into;
  // The way is shorter the next time.
  for (let next: Item | undefined = item; next !== undefined && next !== top; ) {
    const { into }: Item = next;
    next.into = top;
    next = into;
  }
  return top;
}

/** Whether a read of what another group makes can be served by a kernel that is at the same element or row. */
function isInRow({ kind, tensor }: Read, maker: Item): boolean {
  const unit = maker.units.find(({ output }) => output === tensor);
  if (unit === undefined || unit.kind === 'column' || unit.kind === 'part') return false;
  return unit.kind === 'row' ? kind === 'narrow' : kind !== 'other';
}
