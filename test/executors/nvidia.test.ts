import { describe, it } from 'vitest';
import { loadDriver } from '../../src/executors/nvidia/bindings/driver.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';
import { cases, longAttention } from './cases.ts';
import { describeConformance } from './conformance.ts';
import { nnCases } from './nn-cases.ts';

/** Why there is no GPU to test, if there is none. */
function missing(): string | undefined {
  try {
    const driver = loadDriver();
    driver.check(driver.cuInit(0), 'cuInit');
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.slice(0, 120) : String(error);
  }
}

const reason = missing();
if (reason === undefined) {
  // float32 against float64: a few units in the last place of the largest value.
  const executor = await openNvidiaExecutor({ precision: 'fp32' });
  describeConformance(
    'nvidia fp32',
    () => executor,
    { ...cases, ...nnCases, longAttention },
    { tolerance: 2e-6 },
  );
} else {
  describe('conformance of nvidia', () => {
    it.skip(`needs an NVIDIA GPU: ${reason}`, () => undefined);
  });
}
