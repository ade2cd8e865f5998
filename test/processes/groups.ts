import type { ProcessGroup } from '../../src/executors/process-group.ts';

/** The process groups of several processes that are all this one. */
export function groupsOf(world: number): readonly ProcessGroup[] {
  const given = Array.from({ length: world }, (): Uint8Array[] => []);
  const waiting = Array.from({ length: world }, (): ((all: readonly Uint8Array[]) => void)[] => []);
  return Array.from({ length: world }, (_, rank) => ({
    rank,
    world,
    exchange: (bytes) =>
      new Promise((resolve) => {
        given[rank]!.push(bytes.slice());
        waiting[rank]!.push(resolve);
        if (given.some((list) => list.length === 0)) return;
        const all = given.map((list) => list.shift()!);
        for (const list of waiting) list.shift()!(all);
      }),
  }));
}
