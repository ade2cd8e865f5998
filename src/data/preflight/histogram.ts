/** One bar. */
export type Bar = { readonly label: string; readonly count: number };

/** Counts of a property over a dataset, in ascending order of the property. */
export type Histogram = { readonly title: string; readonly bars: readonly Bar[] };

/** Edges in seconds between the bars of durations. */
const durationEdges = [0.5, 1, 2, 4, 8, 16, 32, 64, 300, 3600];

/** Durations in seconds, in bars that double. */
export function durationHistogram(seconds: readonly number[]): Histogram {
  const counts = new Array<number>(durationEdges.length + 1).fill(0);
  for (const value of seconds) {
    const bar = durationEdges.findIndex((edge) => value < edge);
    const index = bar < 0 ? durationEdges.length : bar;
    counts[index] = (counts[index] ?? 0) + 1;
  }
  const label = (i: number) => {
    if (i === 0) return `under ${durationEdges[0]} s`;
    if (i === durationEdges.length) return `over ${durationEdges[i - 1]} s`;
    return `${durationEdges[i - 1]} to ${durationEdges[i]} s`;
  };
  return {
    title: 'Duration',
    bars: withoutEmptyEnds(counts.map((count, i) => ({ label: label(i), count }))),
  };
}

/** Frame rates, one bar for each to two decimals; the rarest are put together. */
export function rateHistogram(rates: readonly number[]): Histogram {
  const bars = countBy(rates.map((rate) => Math.round(rate * 100) / 100));
  return {
    title: 'Frame rate',
    bars: mostCommon(
      bars,
      (rate) => `${rate} fps`,
      (a, b) => a - b,
    ),
  };
}

/** Frame sizes, one bar for each; the rarest are put together. In order of pixels. */
export function sizeHistogram(
  sizes: readonly { readonly width: number; readonly height: number }[],
): Histogram {
  const bars = countBy(sizes.map(({ width, height }) => `${width}x${height}`));
  const pixels = (size: string) => size.split('x').reduce((product, side) => product * Number(side), 1);
  return {
    title: 'Frame size',
    bars: mostCommon(
      bars,
      (size) => size,
      (a, b) => pixels(a) - pixels(b),
    ),
  };
}

const mostBars = 12;

function countBy<K>(values: readonly K[]): Map<K, number> {
  const counts = new Map<K, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function mostCommon<K>(
  counts: ReadonlyMap<K, number>,
  label: (value: K) => string,
  order: (a: K, b: K) => number,
): Bar[] {
  const ranked = [...counts].sort(([a, m], [b, n]) => n - m || order(a, b));
  const shown = ranked.slice(0, ranked.length > mostBars ? mostBars - 1 : mostBars);
  const others = ranked.slice(shown.length);
  const bars = shown
    .sort(([a], [b]) => order(a, b))
    .map(([value, count]) => ({ label: label(value), count }));
  if (others.length > 0) {
    const count = others.reduce((sum, [, n]) => sum + n, 0);
    bars.push({ label: `${others.length} others`, count });
  }
  return bars;
}

function withoutEmptyEnds(bars: readonly Bar[]): Bar[] {
  const first = bars.findIndex(({ count }) => count > 0);
  const last = bars.findLastIndex(({ count }) => count > 0);
  return first < 0 ? [] : bars.slice(first, last + 1);
}
