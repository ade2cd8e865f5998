/**
 * `node bench/gpu/epilogues.ts`: what cuBLASLt's epilogues cost on the products of feed-forward layers, forward and backward,
 * each with the fastest of six algorithms, in bf16 on random values; beside them a copy of the result, which is what a kernel
 * in an epilogue's place takes at least. Then how far its gelu is from the form with tanh, in bf16, TF32 and float32.
 */

import {
  computeTypes,
  cudaTypes,
  descriptorAttributes,
  heuristicResult,
  openCublasLt,
  preferenceAttributes,
} from '../../src/executors/nvidia/bindings/cublaslt.ts';
import { NativeMemory } from '../../src/executors/nvidia/bindings/native.ts';
import { Device } from '../../src/executors/nvidia/device.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { bytesOf, fromFloat32, type HostTensor, toFloat32, zeros } from '../../src/tensor/host-tensor.ts';

/** Numbers of `cublasLtEpilogue_t`, those that the executor does not use among them. */
const epilogues = {
  none: 1,
  bias: 4,
  'bias, gelu': 36,
  'bias, gelu, sum kept': 164,
  'gradient of gelu': 192,
  'gradient of gelu, bias gradient': 208,
  'bias gradient of a': 512,
} as const;
type Epilogue = keyof typeof epilogues;

/** A row-major product y [m, n] = a [m, k] b [k, n], each operand stored transposed if so marked. */
interface Product {
  readonly name: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly type?: 'bf16' | 'f32';
  readonly result: 'bf16' | 'f32';
  readonly epilogues: readonly Epilogue[];
  readonly compute?: keyof typeof computeTypes;
}

const tokens = 16384;
const products: readonly Product[] = [
  {
    name: 'wan, up',
    ...{ m: 32760, n: 8960, k: 1536, transposeB: true, result: 'bf16' },
    epilogues: ['none', 'bias', 'bias, gelu', 'bias, gelu, sum kept'],
  },
  {
    name: 'step128, up',
    ...{ m: tokens, n: 4608, k: 1152, transposeB: true, result: 'bf16' },
    epilogues: ['none', 'bias', 'bias, gelu', 'bias, gelu, sum kept'],
  },
  {
    name: 'step128, gradient of the hidden units',
    ...{ m: tokens, n: 4608, k: 1152, result: 'bf16' },
    epilogues: ['none', 'gradient of gelu', 'gradient of gelu, bias gradient'],
  },
  {
    name: 'step128, gradient of the weights up',
    ...{ m: 4608, n: 1152, k: tokens, transposeA: true, result: 'f32' },
    epilogues: ['none', 'bias gradient of a'],
  },
];

const candidates = 6;
const workspaceBytes = 32 << 20;
const device = new Device(0);
const { memory } = device;
const lt = openCublasLt();
const workspace = memory.allocate(workspaceBytes);
const [one, zero] = [NativeMemory.float(1), NativeMemory.float(0)];
console.log(`${device.name}, cuBLASLt ${lt.version}`);
for (const product of products) costs(product);
exactness({ type: 'bf16', result: 'bf16' });
exactness({ type: 'f32', result: 'f32', compute: 'tf32' });
exactness({ type: 'f32', result: 'f32' });
device.dispose();

function costs(product: Product): void {
  const { name, m, n, k, result } = product;
  const [a, b] = [filled(m * k), filled(k * n)];
  const [y, extra, vector] = [
    memory.allocate(4 * m * n),
    filled(m * n),
    memory.allocate(4 * Math.max(m, n)),
  ] as const;
  device.clear(vector, 4 * Math.max(m, n));
  console.log(`${name}: ${m} x ${n} x ${k}, bf16 to ${result}`);
  for (const epilogue of product.epilogues) {
    const launches = launchesOf(product, epilogue, { a, b, y, extra, vector });
    const times = launches.map((launch) => milliseconds(launch));
    const best = Math.min(...times);
    const rate = (2 * m * n * k) / best / 1e9;
    const found = Number.isFinite(best)
      ? `${best.toFixed(4)} ms, ${rate.toFixed(0)} TFLOP/s`
      : 'no algorithm';
    console.log(`  ${epilogue.padEnd(32)} ${found} (${launches.length} algorithms)`);
  }
  console.log(
    `  ${'copy of the result'.padEnd(32)} ${milliseconds(() => device.copy(y, extra, 2 * m * n)).toFixed(4)} ms`,
  );
  for (const block of [a, b, y, extra, vector]) memory.release(block);
}

/** Largest distance of gelu from the formula, over numbers that every type holds. */
function exactness(types: Pick<Product, 'type' | 'result' | 'compute'>): void {
  const [m, n, k] = [1024, 16, 16];
  const values = Float32Array.from({ length: m }, (_, i) => (i - 512) / 64);
  const a = Float32Array.from({ length: m * k }, (_, i) => (i % k === 0 ? (values[i / k] ?? 0) : 0));
  const b = Float32Array.from({ length: k * n }, (_, i) => (i < n ? 1 : 0));
  const { type = 'bf16', result } = types;
  const given = {
    a: uploaded(fromFloat32(type, [m, k], a)),
    b: uploaded(fromFloat32(type, [k, n], b)),
    y: memory.allocate(4 * m * n),
    extra: memory.allocate(4 * m * n),
    vector: memory.allocate(4 * n),
  };
  device.clear(given.vector, 4 * n);
  const what = `gelu of ${type}${types.compute === 'tf32' ? ' as TF32' : ''}`;
  const product = { name: what, m, n, k, ...types, result, epilogues: [] };
  const [launch] = launchesOf(product, 'bias, gelu', given);
  if (launch === undefined) {
    console.log(`${what}: no algorithm`);
    return;
  }
  launch();
  const found = toFloat32(downloaded(given.y, zeros(result, [m, n])));
  const wrong = values.map((x, i) => Math.abs((found[i * n] ?? 0) - geluOf(x)));
  const relative = wrong.map((error, i) => error / Math.max(1e-3, Math.abs(geluOf(values[i] ?? 0))));
  console.log(
    `${what}: off by ${Math.max(...wrong).toExponential(2)}, relative ${Math.max(...relative).toExponential(2)}`,
  );
}

function geluOf(x: number): number {
  return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/** Where a product's operands, result, second matrix of the result's shape and vector are. */
interface Places {
  readonly a: bigint;
  readonly b: bigint;
  readonly y: bigint;
  readonly extra: bigint;
  readonly vector: bigint;
}

/** A launch for each algorithm that there is for a product with an epilogue. */
function launchesOf(
  product: Product,
  epilogue: Epilogue,
  { a, b, y, extra, vector }: Places,
): (() => void)[] {
  const { m, n, k, transposeA = false, transposeB = false, type = 'bf16', result, compute = 'f32' } = product;
  const out = new NativeMemory(8);
  lt.check(lt.cublasLtMatmulDescCreate(out.bytes, computeTypes[compute], cudaTypes.f32), 'create');
  const descriptor = out.pointer();
  const set = (attribute: number, value: NativeMemory, bytes: number) =>
    lt.check(
      lt.cublasLtMatmulDescSetAttribute(descriptor, attribute, value.bytes, bytes),
      `set ${attribute}`,
    );
  set(descriptorAttributes.transposeA, NativeMemory.int(transposeB ? 1 : 0), 4);
  set(descriptorAttributes.transposeB, NativeMemory.int(transposeA ? 1 : 0), 4);
  set(descriptorAttributes.epilogue, NativeMemory.int(epilogues[epilogue]), 4);
  if (/bias/.test(epilogue)) set(descriptorAttributes.biasPointer, NativeMemory.pointers([vector]), 8);
  if (/kept|gradient of gelu/.test(epilogue)) {
    set(descriptorAttributes.auxiliaryPointer, NativeMemory.pointers([extra]), 8);
    set(descriptorAttributes.auxiliaryLeading, NativeMemory.integers([n]), 8);
  }
  const layout = (rows: number, columns: number, of: 'bf16' | 'f32') => {
    lt.check(lt.cublasLtMatrixLayoutCreate(out.bytes, cudaTypes[of], rows, columns, rows), 'layout');
    return out.pointer();
  };
  const ofA = transposeA ? layout(m, k, type) : layout(k, m, type);
  const ofB = transposeB ? layout(k, n, type) : layout(n, k, type);
  const ofY = layout(n, m, result);
  lt.check(lt.cublasLtMatmulPreferenceCreate(out.bytes), 'preference');
  const preference = out.pointer();
  const limit = NativeMemory.integers([workspaceBytes]);
  const { maxWorkspaceBytes } = preferenceAttributes;
  lt.check(
    lt.cublasLtMatmulPreferenceSetAttribute(preference, maxWorkspaceBytes, limit.bytes, 8),
    'workspace',
  );
  const results = new NativeMemory(heuristicResult.bytes * candidates);
  const [handle, operands] = [lt.handle, [descriptor, ofB, ofA, ofY, ofY] as const];
  const asked = [handle, ...operands, preference, candidates, results.bytes, out.bytes] as const;
  const status = lt.cublasLtMatmulAlgoGetHeuristic(...asked);
  lt.cublasLtMatmulPreferenceDestroy(preference);
  return Array.from({ length: status === 0 ? out.int() : 0 }, (_, index) => {
    const algorithm = results.bytes.subarray(index * heuristicResult.bytes);
    const matrices = [one.bytes, b, ofB, a, ofA, zero.bytes, y, ofY, y, ofY] as const;
    const call = [
      handle,
      descriptor,
      ...matrices,
      algorithm,
      workspace,
      workspaceBytes,
      device.stream,
    ] as const;
    return () => lt.check(lt.cublasLtMatmul(...call), 'cublasLtMatmul');
  });
}

function milliseconds(launch: () => void): number {
  try {
    launch();
    return device.time(launch, 10);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Memory with random bf16 values: a block of them over and over. */
function filled(count: number): bigint {
  const address = memory.allocate(2 * count);
  const known = Math.min(count, 2 ** 20);
  const block = fromFloat32('bf16', [known], normal(keyFromSeed(1), known));
  upload(address, block);
  for (let done = known; done < count; done *= 2)
    device.copy(address + BigInt(2 * done), address, 2 * Math.min(done, count - done));
  return address;
}

function uploaded(tensor: HostTensor): bigint {
  const address = memory.allocate(bytesOf(tensor).length);
  upload(address, tensor);
  return address;
}

function upload(address: bigint, tensor: HostTensor): void {
  const bytes = bytesOf(tensor);
  const block = device.pinned.take(bytes.length);
  block.bytes.set(bytes);
  const { driver, stream } = device;
  driver.check(driver.cuMemcpyHtoDAsync_v2(address, block.address, bytes.length, stream), 'upload');
  device.synchronize();
}

function downloaded(address: bigint, tensor: HostTensor): HostTensor {
  const bytes = bytesOf(tensor);
  const block = device.pinned.take(bytes.length);
  const { driver, stream } = device;
  driver.check(driver.cuMemcpyDtoHAsync_v2(block.address, address, bytes.length, stream), 'download');
  device.synchronize();
  bytes.set(block.bytes.subarray(0, bytes.length));
  return tensor;
}
