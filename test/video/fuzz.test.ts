import { expect, test } from 'vitest';
import { fuzzMedia } from '../fuzz/media.ts';

// The files we write ourselves, in every format; `npx node test/fuzz/media.ts 2000` adds those of others.
test('60 damaged files: no crash, no hang, no silent short read', async () => {
  const { problems, outcomes, grownBytes } = await fuzzMedia(60, 2026, false);
  expect(problems).toEqual([]);
  expect(outcomes).toMatchObject({ crashedChild: 0, timedOut: 0 });
  expect(outcomes.whole + outcomes.shortfall + outcomes.refused).toBe(60);
  expect(outcomes.shortfall).toBeGreaterThan(0);
  expect(grownBytes).toBeLessThan(512 * 2 ** 20);
});
