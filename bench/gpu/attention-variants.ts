import type { Device } from '../../src/executors/nvidia/device.ts';
import type { KernelCache } from '../../src/executors/nvidia/kernel-cache.ts';
import {
  type AttentionContext,
  forwardCall,
  gradientCall,
} from '../../src/executors/nvidia/library/attention.ts';
import { forwardByKeys } from '../../src/executors/nvidia/library/attention-by-keys.ts';
import { gradientByQueries } from '../../src/executors/nvidia/library/attention-by-queries.ts';
import type { AttentionGraph } from '../../src/executors/nvidia/library/attention-graph.ts';
import type { LibraryCall } from '../../src/executors/nvidia/library/library-call.ts';
import type { AttentionSizes } from '../../src/executors/nvidia/library/token-layout.ts';
import { bytesOfType } from '../../src/executors/nvidia/program.ts';
import { bytesPerElement } from '../../src/tensor/dtype.ts';
import { bytesOf, type HostTensor, toFloat32, zeros } from '../../src/tensor/host-tensor.ts';
import { at, elementCount, type TensorType } from '../../src/tensor/shape.ts';

/** A way to compute an attention. */
export interface Variant {
  readonly name: string;
  /** Whether the executor would take it. */
  readonly isChosen: boolean;
  readonly call: LibraryCall;
}

/** A variant's median time, and the largest difference of its results from those of the first variant. */
export interface Measurement {
  readonly name: string;
  readonly isChosen: boolean;
  readonly milliseconds: number;
  /** Relative to the largest value. */
  readonly difference: number;
}

const narrow = {
  q: 'bf16',
  k: 'bf16',
  v: 'bf16',
  y: 'bf16',
  dy: 'bf16',
  dq: 'bf16',
  dk: 'bf16',
  dv: 'bf16',
} as const;

/** Rounds over which a median is taken, and about how long a variant runs in each. */
const [rounds, turnMilliseconds] = [7, 25];
/** How many of a result's last elements are compared. */
const compared = 1 << 21;

/** Attention in one run, by up to `plans` of cuDNN's plans, and with the keys that do not fill a tile apart. */
export function forwardVariants(context: AttentionContext, sizes: AttentionSizes, plans: number): Variant[] {
  const chosen = context.splits.lateKeys(sizes);
  const late = sizes.keys % 128;
  const whole = byPlan(context.forwards, plans, () => forwardCall(context, sizes, narrow));
  return [
    ...whole.map((call, plan) => ({ ...planned(plan), isChosen: plan === 0 && chosen === 0, call })),
    ...(late > 1 && late < sizes.keys
      ? [
          {
            name: `${late} keys apart`,
            isChosen: chosen === late,
            call: forwardByKeys(context, sizes, narrow, late),
          },
        ]
      : []),
  ];
}

/** The gradient in one run, by up to `plans` of cuDNN's plans, and with the queries in parts. */
export function gradientVariants(context: AttentionContext, sizes: AttentionSizes, plans: number): Variant[] {
  const chosen = context.splits.queryParts(sizes);
  const whole = byPlan(context.backwards, plans, () => gradientCall(context, sizes, narrow));
  const parts = [2, 4, 8, 16, 32].filter((count) => sizes.queries % (count * 128) === 0);
  return [
    ...whole.map((call, plan) => ({ ...planned(plan), isChosen: plan === 0 && chosen === 1, call })),
    ...parts.map((count) => ({
      name: `queries in ${count} parts`,
      isChosen: count === chosen,
      call: gradientByQueries(context, sizes, narrow, count),
    })),
  ];
}

/** Measures variants in turns, each as one recorded launch, on the same operands. */
export async function measure(
  device: Device,
  kernels: KernelCache,
  variants: readonly Variant[],
  inputs: readonly bigint[],
  results: readonly TensorType[],
): Promise<Measurement[]> {
  await kernels.prepare(variants.flatMap(({ call }) => call.kernels));
  const runners = variants.flatMap((variant) => {
    try {
      return [new Runner(device, variant, inputs, results)];
    } catch (error) {
      console.log(`${variant.name}: ${error instanceof Error ? error.message : String(error)}`);
      return [];
    }
  });
  const times = runners.map((): number[] => []);
  for (let round = 0; round < rounds; round++)
    runners.forEach((runner, index) => {
      at(times, index).push(runner.time());
    });
  const expected = runners[0]?.results() ?? [];
  const measurements = runners.map((runner, index) => ({
    ...runner.variant,
    milliseconds: median(at(times, index)),
    difference: Math.max(...runner.results().map((found, i) => largestDifference(found, at(expected, i)))),
  }));
  for (const runner of runners) runner.dispose();
  return measurements;
}

class Runner {
  readonly variant: Variant;
  private readonly device: Device;
  private readonly types: readonly TensorType[];
  private readonly outputs: readonly bigint[];
  private readonly scratch: readonly bigint[];
  private readonly graph: ReturnType<Device['capture']>;
  private readonly count: number;

  constructor(device: Device, variant: Variant, inputs: readonly bigint[], results: readonly TensorType[]) {
    const { call } = variant;
    this.variant = variant;
    this.device = device;
    this.types = results;
    this.outputs = results.map((type) => device.memory.allocate(bytesOfType(type)));
    this.scratch = call.scratch.map((bytes) => device.memory.allocate(bytes));
    const launches = call.bind({ inputs, outputs: this.outputs, scratch: this.scratch });
    const queue = () => {
      for (const launch of launches) launch();
    };
    // The first run lets libraries set themselves up.
    queue();
    device.synchronize();
    this.graph = device.capture(queue);
    this.count = Math.max(3, Math.ceil(turnMilliseconds / device.time(() => this.graph.launch(), 3)));
  }

  /** Milliseconds of a run. */
  time(): number {
    return this.device.time(() => this.graph.launch(), this.count);
  }

  /** The last elements of each result. */
  results(): HostTensor[] {
    const { driver, stream } = this.device;
    return this.types.map(({ shape, dtype }, index) => {
      const count = elementCount(shape);
      const tensor = zeros(dtype, [Math.min(count, compared)]);
      const bytes = bytesOf(tensor);
      const end = at(this.outputs, index) + BigInt(count * bytesPerElement(dtype));
      const status = driver.cuMemcpyDtoHAsync_v2(bytes, end - BigInt(bytes.length), bytes.length, stream);
      driver.check(status, 'download');
      this.device.synchronize();
      return tensor;
    });
  }

  dispose(): void {
    this.graph.dispose();
    for (const address of [...this.outputs, ...this.scratch]) this.device.memory.release(address);
  }
}

/** A call for each of cuDNN's first plans of the problem that `make` makes known. */
function byPlan<Names extends string>(
  known: Map<string, AttentionGraph<Names>>,
  most: number,
  make: () => LibraryCall,
): LibraryCall[] {
  const before = new Set(known.keys());
  const first = make();
  const [problem] = [...known].filter(([key]) => !before.has(key));
  if (problem === undefined || most < 2) return [first];
  const [key, planned] = problem;
  const others = planned.graph.plans(most).slice(1);
  const calls = others.map((plan) => {
    known.set(key, { ...planned, plan });
    return make();
  });
  known.set(key, planned);
  return [first, ...calls];
}

function planned(plan: number): { readonly name: string } {
  return { name: plan === 0 ? 'one run' : `one run, plan ${plan + 1}` };
}

function largestDifference(found: HostTensor, expected: HostTensor): number {
  const [a, b] = [toFloat32(found), toFloat32(expected)];
  let [largest, scale] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    const off = Math.abs(at(a, i) - at(b, i));
    if (!(off <= largest)) largest = off;
    scale = Math.max(scale, Math.abs(at(b, i)));
  }
  return largest / scale;
}

function median(values: readonly number[]): number {
  return at(
    [...values].sort((a, b) => a - b),
    values.length >> 1,
  );
}
