import { it } from 'vitest';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { expectDonatedOnce } from './conformance.ts';

it('refuses a buffer that is given twice when one of the two is donated', () =>
  expectDonatedOnce(new ReferenceExecutor()));
