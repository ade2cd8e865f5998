import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  attributes,
  type Cudnn,
  CudnnError,
  descriptors,
} from '../../../src/executors/nvidia/bindings/cudnn.ts';
import { cacheVariable } from '../../../src/executors/nvidia/disk-cache.ts';
import {
  attentionBackward,
  attentionForward,
} from '../../../src/executors/nvidia/library/attention-graph.ts';
import { KeptPlans } from '../../../src/executors/nvidia/library/kept-plans.ts';

const problem = {
  batch: 1,
  heads: 2,
  queries: 256,
  keys: 128,
  headSize: 64,
  scale: 0.125,
  hasLengths: false,
};

describe('plans of cuDNN', () => {
  const before = process.env[cacheVariable];
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'zoetrope-plans-'));
    process.env[cacheVariable] = folder;
  });
  afterEach(() => {
    if (before === undefined) delete process.env[cacheVariable];
    else process.env[cacheVariable] = before;
    rmSync(folder, { recursive: true });
  });

  /** What a process does that plans a forward pass and its gradients: how many plans it compiled and restored. */
  function processOf({ given = problem, gpu = 'GPU', version = 91_000, hasTexts = true } = {}) {
    const library = new CudnnStandIn(hasTexts);
    const kept = new KeptPlans(gpu, version);
    const plans = [attentionForward, attentionBackward].map((make) => make(library.cudnn, kept, given));
    expect(plans.map(({ plan }) => plan.workspaceBytes)).toEqual([4096, 4096]);
    for (const { graph } of plans) graph[Symbol.dispose]();
    expect(library.left).toBe(0);
    return { compiled: library.compiled, restored: library.restored };
  }

  it('are compiled once for a graph, a GPU and a version of cuDNN', () => {
    expect(processOf()).toEqual({ compiled: 2, restored: 0 });
    expect(processOf()).toEqual({ compiled: 0, restored: 2 });
    for (const changed of [
      { given: { ...problem, keys: 256 } },
      { given: { ...problem, keyStep: 512 } },
      { given: { ...problem, hasLengths: true } },
      { gpu: 'another' },
      { version: 91_001 },
    ])
      expect(processOf(changed)).toEqual({ compiled: 2, restored: 0 });
    // The scale is no part of a plan: it is read when that runs.
    expect(processOf({ given: { ...problem, scale: 1 } })).toEqual({ compiled: 0, restored: 2 });
  });

  it('are compiled anew where cuDNN does not take what was kept', () => {
    processOf();
    const files = join(folder, 'plans');
    for (const file of readdirSync(files)) writeFileSync(join(files, file), 'short');
    expect(processOf()).toEqual({ compiled: 2, restored: 0 });
    expect(processOf()).toEqual({ compiled: 0, restored: 2 });
  });

  it('are compiled in each process where engines give no texts', () => {
    expect(processOf({ hasTexts: false })).toEqual({ compiled: 2, restored: 0 });
    expect(processOf({ hasTexts: false })).toEqual({ compiled: 2, restored: 0 });
  });
});

/** Descriptors of cuDNN that check nothing but the texts of plans. */
class CudnnStandIn {
  compiled = 0;
  restored = 0;
  private readonly hasTexts: boolean;
  private readonly alive = new Map<bigint, { readonly kind: number; text?: string }>();
  private next = 1n;

  constructor(hasTexts: boolean) {
    this.hasTexts = hasTexts;
  }

  /** Descriptors that were not destroyed. */
  get left(): number {
    return this.alive.size;
  }

  get cudnn(): Cudnn {
    const put = (bytes: Uint8Array, value: bigint) =>
      new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, value, true);
    return {
      handle: 99n,
      check: (status: number, action: string) => {
        if (status !== 0) throw new CudnnError(action);
      },
      cudnnBackendCreateDescriptor: (kind: number, out: Uint8Array) => {
        put(out, this.next);
        this.alive.set(this.next++, { kind });
        return 0;
      },
      cudnnBackendDestroyDescriptor: (descriptor: bigint) => (this.alive.delete(descriptor) ? 0 : 1),
      cudnnBackendSetAttribute: (
        descriptor: bigint,
        attribute: number,
        _: number,
        count: number,
        bytes: Uint8Array,
      ) => {
        const one = this.alive.get(descriptor);
        if (one !== undefined && attribute === attributes.planText)
          one.text = new TextDecoder().decode(bytes.subarray(0, count));
        return 0;
      },
      cudnnBackendGetAttribute: (
        _: bigint,
        attribute: number,
        __: number,
        most: number,
        count: Uint8Array,
        target: Uint8Array | null,
      ) => {
        if (attribute === attributes.planText && !this.hasTexts) return 3000;
        const text = new TextEncoder().encode('{"plan":1}');
        put(count, BigInt(attribute === attributes.planText ? text.length : 1));
        if (attribute === attributes.planWorkspace && target !== null) put(target, 4096n);
        if (attribute === attributes.planText && target !== null) target.set(text.subarray(0, most));
        return 0;
      },
      cudnnBackendFinalize: (descriptor: bigint) => {
        const one = this.alive.get(descriptor);
        if (one?.kind !== descriptors.executionPlan) return 0;
        if (one.text === undefined) this.compiled++;
        else if (one.text === '{"plan":1}') this.restored++;
        else return 2000;
        return 0;
      },
    } as unknown as Cudnn;
  }
}
