import type { Picture } from './survey.ts';

/** What is compared to find copies: of each file, in the order of the dataset. */
export type Likeness = {
  readonly file: string;
  /** Digest of the bytes; empty when the file was not read. */
  readonly hash: string;
  /** Seconds; 0 for a still. */
  readonly seconds: number;
  /** Colours of the picture over time, uint8; see {@link fingerprint}. Empty without frames. */
  readonly fingerprint: Uint8Array;
};

/** Files that are the same. Groups have two members or more, in the order of the dataset. */
export type Duplicates = {
  /** The same bytes. */
  readonly exact: readonly (readonly string[])[];
  /** The same pictures, to the eye, in different bytes: re-encoded, resized. One of each exact group is compared. */
  readonly near: readonly (readonly string[])[];
};

const cells = 8;
/** Levels (of 255) by which any cell of near duplicates may differ: coding noise is less, other content more. */
const tolerance = 5;

/** Average colours of a grid of 8x8 cells in each sample, shape [samples, 8, 8, 3]; alike for copies of any size. */
export function fingerprint(samples: readonly Picture[]): Uint8Array {
  const result = new Uint8Array(samples.length * cells * cells * 3);
  let at = 0;
  for (const { data, width, height } of samples) {
    for (let row = 0; row < cells; row++) {
      for (let column = 0; column < cells; column++) {
        const top = Math.floor((row * height) / cells);
        const left = Math.floor((column * width) / cells);
        const bottom = Math.max(top + 1, Math.floor(((row + 1) * height) / cells));
        const right = Math.max(left + 1, Math.floor(((column + 1) * width) / cells));
        for (let channel = 0; channel < 3; channel++) {
          let sum = 0;
          for (let y = top; y < bottom; y++) {
            for (let x = left; x < right; x++) sum += data[(y * width + x) * 3 + channel] ?? 0;
          }
          result[at++] = Math.round(sum / ((bottom - top) * (right - left)));
        }
      }
    }
  }
  return result;
}

/** Finds copies among files. Time grows with the number of files of like brightness, not with all pairs. */
export function findDuplicates(files: readonly Likeness[]): Duplicates {
  const byHash = Map.groupBy(
    files.filter(({ hash }) => hash !== ''),
    ({ hash }) => hash,
  );
  const exact = [...byHash.values()]
    .filter((group) => group.length > 1)
    .map((group) => group.map(({ file }) => file));
  const distinct = [...byHash.values()].map(([first]) => first).filter((file) => file !== undefined);
  return { exact, near: findNear(distinct.filter(({ fingerprint: print }) => print.length > 0)) };
}

/**
 * Cells that differ by at most `tolerance` have means that differ by at most as much, so only neighbours in the order
 * of the means need be compared.
 */
function findNear(files: readonly Likeness[]): string[][] {
  const sorted = files
    .map((file, order) => ({ file, order, mean: mean(file.fingerprint), group: order }))
    .sort((a, b) => a.mean - b.mean || a.order - b.order);
  const groupOf = Int32Array.from({ length: files.length }, (_, i) => i);
  const root = (i: number): number => {
    let at = i;
    while (groupOf[at] !== at) at = groupOf[at] ?? at;
    return at;
  };
  for (const [i, a] of sorted.entries()) {
    for (let j = i + 1; j < sorted.length; j++) {
      const b = sorted[j];
      if (b === undefined || b.mean - a.mean > tolerance) break;
      if (!isNear(a.file, b.file)) continue;
      const [low, high] = [root(a.order), root(b.order)].sort((x, y) => x - y);
      groupOf[high ?? 0] = low ?? 0;
    }
  }
  const groups = Map.groupBy(files.keys(), root);
  return [...groups.values()]
    .filter((group) => group.length > 1)
    .map((group) => group.map((i) => files[i]?.file).filter((file) => file !== undefined));
}

function isNear(a: Likeness, b: Likeness): boolean {
  if (a.fingerprint.length !== b.fingerprint.length) return false;
  if (Math.abs(a.seconds - b.seconds) > 0.05 * Math.max(a.seconds, b.seconds)) return false;
  return a.fingerprint.every((value, i) => Math.abs(value - (b.fingerprint[i] ?? 0)) <= tolerance);
}

function mean(values: Uint8Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
