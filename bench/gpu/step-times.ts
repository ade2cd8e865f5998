import type { StepTime } from '../../src/executors/nvidia/binding.ts';

/**
 * Prints the time of a program's steps, those of one name together, the longest first, and how fast they move their operands
 * and results. @param rows lines shown.
 */
export function reportSteps(times: readonly StepTime[], rows: number): void {
  const groups = new Map<string, { count: number; total: number; moved: number }>();
  for (const { name, milliseconds, bytes } of times) {
    const group = groups.get(name) ?? { count: 0, total: 0, moved: 0 };
    groups.set(name, {
      count: group.count + 1,
      total: group.total + milliseconds,
      moved: group.moved + bytes,
    });
  }
  const total = times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  console.log(`${total.toFixed(2)} ms in ${times.length} steps one by one`);
  const longest = [...groups].sort(([, a], [, b]) => b.total - a.total).slice(0, rows);
  for (const [name, { count, total: sum, moved }] of longest) {
    const rate = (moved / sum / 1e6).toFixed(0).padStart(5);
    console.log(`${sum.toFixed(3).padStart(8)} ms ${rate} GB/s ${String(count).padStart(4)} x ${name}`);
  }
}
