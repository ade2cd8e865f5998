import { createHash } from 'node:crypto';
import type { DType } from '../../../tensor/dtype.ts';
import { at, elementCount, rowMajorStrides, type Shape } from '../../../tensor/shape.ts';
import type { ConvolutionGeometry } from '../../../tensor/vocabulary.ts';
import type { Kernel } from '../kernel.ts';
import { storageType } from '../plain/expression.ts';
import { lines } from './conversion-kernels.ts';

/** Shapes of a convolution y = x * kernel, channels last, and which of the three is computed from the others. */
export interface ConvolutionProblem extends ConvolutionGeometry {
  readonly kind: 'forward' | 'inputGradient' | 'kernelGradient';
  /** [N, ..spatial, Cin]. */
  readonly x: Shape;
  /** [Cout, ..kernel, Cin]. */
  readonly kernel: Shape;
  /** [N, ..spatial', Cout]. */
  readonly y: Shape;
}

/**
 * A convolution as plain loops in float32: exact and slow. For strict precision, and where cuDNN has no engine. The
 * parameters are the two given tensors, in the order of the operation, and the result, each as it is stored.
 */
export function directConvolution(problem: ConvolutionProblem, stored: StoredTypes): Kernel {
  const [a, b, out] = stored.map(storageType);
  const body = bodies[problem.kind](problem, memoryOf(stored));
  const hash = createHash('sha256').update(`${body.code}${stored.filter((dtype) => dtype !== 'f32')}`);
  const name = `convolution_${problem.kind}_${hash.digest('hex').slice(0, 12)}`;
  return {
    name,
    source: `extern "C" __global__ void ${name}(const ${a}* __restrict__ a, const ${b}* __restrict__ b, ${out}* __restrict__ out) {
${body.code}
}`,
    ...body.launch,
  };
}

/** How the two operands and the result of a convolution lie in memory. */
export type StoredTypes = readonly [a: DType, b: DType, out: DType];

/** C of what reads and writes memory. */
interface Memory {
  readonly a: string;
  readonly b: string;
  /** An element behind a pointer into an operand. */
  readonly get: (operand: 'a' | 'b', pointer: string, index: string) => string;
  readonly put: (index: string, value: string) => string;
}

function memoryOf([a, b, out]: StoredTypes): Memory {
  const types = { a, b };
  return {
    a: storageType(a),
    b: storageType(b),
    get: (operand, pointer, index) =>
      types[operand] === 'f32' ? `${pointer}[${index}]` : `get(${pointer}, ${index})`,
    put: (index, value) => (out === 'f32' ? `out[${index}] = ${value};` : `put(out, ${index}, ${value});`),
  };
}

interface Body {
  readonly code: string;
  readonly launch: Pick<Kernel, 'grid' | 'block' | 'sharedBytes'>;
}

const reducers = 128;

const bodies: Readonly<
  Record<ConvolutionProblem['kind'], (problem: ConvolutionProblem, memory: Memory) => Body>
> = {
  forward: (problem, { a, b, get, put }) => {
    const { y, kernel } = problem;
    const cin = at(kernel, kernel.length - 1);
    const count = elementCount(y);
    return {
      code: `  long long index = blockIdx.x * 256LL + threadIdx.x;
  if (index >= ${count}LL) return;
  ${unravel('p', 'index', y)}
  float sum = 0.0f;
  ${tapLoops(
    kernel,
    `${inputPositions(problem)}
    if (${inside(problem)}) {
      const ${a}* xs = a + ${inputOffset(problem, 'p0')};
      const ${b}* ks = b + ${kernelOffset(problem, `p${y.length - 1}`)};
      for (int c = 0; c < ${cin}; c++) sum += ${get('a', 'xs', 'c')} * ${get('b', 'ks', 'c')};
    }`,
  )}
  ${put('index', 'sum')}`,
      launch: lines(count),
    };
  },
  inputGradient: (problem, { a, b, get, put }) => {
    const { x, y, kernel, strides, padding } = problem;
    const cout = at(kernel, 0);
    const count = elementCount(x);
    const outputs = strides.map((stride, axis) => {
      const moved = `p${axis + 1} + ${at(padding, axis)[0]} - t${axis}`;
      return `int m${axis} = ${moved}; int o${axis} = m${axis} / ${stride};`;
    });
    const valid = strides.map(
      (stride, axis) => `m${axis} >= 0 && m${axis} % ${stride} == 0 && o${axis} < ${at(y, axis + 1)}`,
    );
    const spatial = strides.map((_, axis) => `o${axis}`);
    return {
      code: `  long long index = blockIdx.x * 256LL + threadIdx.x;
  if (index >= ${count}LL) return;
  ${unravel('p', 'index', x)}
  float sum = 0.0f;
  ${tapLoops(
    kernel,
    `${outputs.join(' ')}
    if (${valid.join(' && ') || 'true'}) {
      const ${a}* ys = a + ${offset(['p0', ...spatial, '0'], y)};
      const ${b}* ks = b + ${kernelOffset(problem, '0')} + p${x.length - 1};
      for (int c = 0; c < ${cout}; c++) sum += ${get('a', 'ys', 'c')} * ${get('b', 'ks', `c * ${elementCount(kernel.slice(1))}LL`)};
    }`,
  )}
  ${put('index', 'sum')}`,
      launch: lines(count),
    };
  },
  // A block for each weight: its threads share the positions of all samples.
  kernelGradient: (problem, { get, put }) => {
    const { y, kernel } = problem;
    const positions = elementCount(y.slice(0, -1));
    const taps = kernel.slice(1, -1).map((_, axis) => `int t${axis} = k${axis + 1};`);
    const last = kernel.length - 1;
    return {
      code: `  ${unravel('k', 'blockIdx.x', kernel)}
  ${taps.join(' ')}
  float sum = 0.0f;
  for (long long index = threadIdx.x; index < ${positions}LL; index += ${reducers}) {
    ${unravel('p', 'index', y.slice(0, -1))}
    ${inputPositions(problem)}
    if (${inside(problem)})
      sum += ${get('a', 'a', `${inputOffset(problem, 'p0')} + k${last}`)} * ${get('b', 'b', `index * ${at(y, y.length - 1)}LL + k0`)};
  }
  __shared__ float sums[${reducers}];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int half = ${reducers / 2}; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) ${put('blockIdx.x', 'sums[0]')}`,
      launch: { grid: [elementCount(kernel), 1, 1], block: [reducers, 1, 1], sharedBytes: 0 },
    };
  },
};

/** Declares `p0`, `p1`, .. as the index along each axis. */
function unravel(prefix: string, from: string, shape: Shape): string {
  const strides = rowMajorStrides(shape);
  return shape
    .map(
      (size, axis) =>
        `int ${prefix}${axis} = (int)(((long long)${from} / ${at(strides, axis)}LL) % ${size});`,
    )
    .join(' ');
}

/** Loops over the kernel's taps `t0`, `t1`, ... */
function tapLoops(kernel: Shape, body: string): string {
  return kernel
    .slice(1, -1)
    .reduceRight(
      (inner, size, axis) => `for (int t${axis} = 0; t${axis} < ${size}; t${axis}++) { ${inner} }`,
      body,
    );
}

/** Declares `i0`, `i1`, ..: where the tap of an output position reads x. */
function inputPositions({ strides, padding }: ConvolutionProblem): string {
  return strides
    .map((stride, axis) => `int i${axis} = p${axis + 1} * ${stride} + t${axis} - ${at(padding, axis)[0]};`)
    .join(' ');
}

function inside({ x, strides }: ConvolutionProblem): string {
  return strides.map((_, axis) => `i${axis} >= 0 && i${axis} < ${at(x, axis + 1)}`).join(' && ') || 'true';
}

function inputOffset({ x, strides }: ConvolutionProblem, sample: string): string {
  return offset([sample, ...strides.map((_, axis) => `i${axis}`), '0'], x);
}

function kernelOffset({ kernel, strides }: ConvolutionProblem, channel: string): string {
  return offset([channel, ...strides.map((_, axis) => `t${axis}`), '0'], kernel);
}

function offset(index: readonly string[], shape: Shape): string {
  const strides = rowMajorStrides(shape);
  return `(${index.map((position, axis) => `${position} * ${at(strides, axis)}LL`).join(' + ')})`;
}
