import { describe, expect, it } from 'vitest';
import { keyFromSeed, RandomStream } from '../../src/random/philox.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import {
  attention,
  concat,
  convolution,
  gather,
  matmul,
  pad,
  rotary,
  scatterAdd,
  where,
} from '../../src/tensor/functions.ts';
import { input } from '../../src/tensor/graph.ts';
import {
  broadcastShapes,
  elementCount,
  expectShape,
  GraphError,
  normalizeAxis,
  rowMajorStrides,
  type Shape,
} from '../../src/tensor/shape.ts';
import { constant, type Tensor } from '../../src/tensor/tensor.ts';

const of = (shape: Shape, dtype: DType = 'f32') => input('x', { shape, dtype });

/** A few hundred random shapes, some with axes of size 1 and 0. */
function randomShapes(seed: number, count: number): Shape[] {
  const random = new RandomStream(keyFromSeed(seed));
  return Array.from({ length: count }, () => Array.from({ length: random.int(5) }, () => random.int(5)));
}

describe('shapes', () => {
  it('broadcast like NumPy: commutative, with [] as unit, idempotent', () => {
    for (const shape of randomShapes(1, 300)) {
      const partner = shape.map((size, i) => (i % 2 === 0 ? size : 1)).slice(shape.length > 2 ? 1 : 0);
      expect(broadcastShapes(shape, partner)).toEqual(broadcastShapes(partner, shape));
      expect(broadcastShapes(shape, [])).toEqual(shape);
      expect(broadcastShapes(shape, shape)).toEqual(shape);
    }
  });

  it('have strides that number every element once', () => {
    for (const shape of randomShapes(2, 100)) {
      const strides = rowMajorStrides(shape);
      const farthest = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, 0);
      if (elementCount(shape) > 0) expect(farthest).toBe(elementCount(shape) - 1);
    }
  });

  it('survive reshape, transpose there and back, split and concat', () => {
    for (const shape of randomShapes(3, 200)) {
      const x = of(shape);
      expect(x.reshape([elementCount(shape)]).reshape(shape).shape).toEqual(shape);
      const permutation = shape.map((_, axis) => (axis + 1) % shape.length);
      const back = permutation.map((_, axis) => permutation.indexOf(axis));
      expect(x.transpose(permutation).transpose(back).shape).toEqual(shape);
      if (shape.length === 0) continue;
      const first = Math.floor(shape[0]! / 2);
      expect(concat(x.split(0, [first, shape[0]! - first]), 0).shape).toEqual(shape);
      expect(x.sum([0], true).shape).toEqual([1, ...shape.slice(1)]);
      expect(x.sum([0]).shape).toEqual(shape.slice(1));
    }
  });

  it('of convolutions shrink by the kernel and the stride', () => {
    const random = new RandomStream(keyFromSeed(4));
    for (let i = 0; i < 200; i++) {
      const [size, kernel, stride, before, after] = [
        1 + random.int(12),
        1 + random.int(4),
        1 + random.int(3),
        random.int(3),
        random.int(3),
      ];
      const room = size + before + after - kernel;
      const build = () =>
        convolution(of([2, size, 3]), of([5, kernel, 3]), { strides: [stride], padding: [[before, after]] });
      if (room < 0) expect(build).toThrow(GraphError);
      else expect(build().shape).toEqual([2, Math.floor(room / stride) + 1, 5]);
    }
  });
});

describe('a mistake in a graph names the operation and what is wrong', () => {
  const mistakes: readonly (readonly [string, () => unknown, RegExp])[] = [
    [
      'broadcast',
      () => of([2, 3]).add(of([4])),
      /^add\(f32\[2, 3\], f32\[4\]\): shapes \[2, 3\] and \[4\] do not broadcast$/,
    ],
    ['dtype', () => of([2]).add(of([2], 'i32')), /dtypes differ: f32 and i32; cast one of them/],
    [
      'matmul',
      () => matmul(of([2, 3]), of([4, 5])),
      /^matmul\(f32\[2, 3\], f32\[4, 5\]\): inner sizes differ: 3 and 4/,
    ],
    ['matmul rank', () => matmul(of([3]), of([3, 5])), /both operands need at least two axes/],
    ['float op on i32', () => of([2], 'i32').exp(), /takes floats, got i32/],
    ['number op on bool', () => of([2], 'bool').add(of([2], 'bool')), /takes numbers, got bool/],
    ['condition', () => where(of([2]), 1, 2), /the condition must be bool, got f32/],
    ['axis', () => of([2, 3]).sum([2]), /axis 2 is outside a tensor of 2 axes; use -2 to 1/],
    ['maximum of nothing', () => of([0, 2]).max([0]), /\[0, 2\] has nothing along axes 0/],
    ['reshape', () => of([6]).reshape([4, 2]), /\[6\] has 6 elements, \[4, 2\] 8/],
    ['reshape with a remainder', () => of([6]).reshape([4, -1]), /^reshape/],
    ['permutation', () => of([2, 3]).transpose([0, 0]), /\[0,0\] is not a permutation of 2 axes/],
    ['slice', () => of([4]).slice(0, 2, 5), /range 2..5 is outside axis 0 of size 4/],
    ['split', () => of([4]).split(0, [1, 2]), /sizes 1,2 add up to 3, the axis has 4/],
    [
      'concat',
      () => concat([of([2, 3]), of([2, 4])], 0),
      /f32\[2, 4\] does not fit f32\[2, 3\] along axis 0/,
    ],
    ['pad', () => pad(of([2]), [[-1, 0]]), /counts must be 0 or more/],
    ['indices', () => gather(of([2]), of([1])), /indices must be i32, got f32/],
    ['updates', () => scatterAdd(of([2], 'i32'), of([3, 1]), 4), /must start with the indices' axes \[2\]/],
    [
      'attention',
      () => attention(of([1, 2, 3, 4]), of([1, 2, 3, 5]), of([1, 2, 3, 4])),
      /k must be \[B=1, T, H=3, D=4\], got \[1, 2, 3, 5\]/,
    ],
    [
      'attention without keys',
      () => attention(of([1, 2, 3, 4]), of([1, 0, 3, 4]), of([1, 0, 3, 4])),
      /needs at least one row, one query and one key/,
    ],
    [
      'segments',
      () => attention(of([1, 2, 1, 4]), of([1, 3, 1, 4]), of([1, 3, 1, 4]), { segments: of([1, 2], 'i32') }),
      /as many keys as queries/,
    ],
    [
      'rotary',
      () => rotary(of([1, 2, 1, 5]), of([1, 2, 2]), of([1, 2, 2])),
      /needs an even head size, got 5/,
    ],
    ['kernel', () => convolution(of([1, 4, 2]), of([3, 2, 5])), /x has 2 channels, the kernel takes 5/],
    [
      'stride',
      () => convolution(of([1, 4, 2]), of([3, 2, 2]), { strides: [0] }),
      /strides must be 1 or more/,
    ],
    ['constant', () => constant([1, 2], [3]), /needs 1 or 3 values, got 2/],
    ['fraction of integers', () => of([2], 'i32').mul(0.5), /i32 cannot hold 0.5; cast first/],
    ['boolean', () => constant([2], [1], 'bool'), /bool cannot hold 2/],
    ['permutation too short', () => of([2, 3]).transpose([0]), /\[0\] is not a permutation of 2 axes/],
    ['8-bit floats', () => of([2], 'f8e4m3'), /f8e4m3 is reserved/],
    ['size', () => of([-1]), /sizes must be integers of 0 or more/],
  ];
  it.each(mistakes)('%s', (_, build, message) => {
    expect(build).toThrow(GraphError);
    expect(build).toThrow(message);
  });
});

describe('named axes', () => {
  it('give their sizes, and hold names to one size', () => {
    const { B, D } = expectShape(of([2, 3, 2]), 'B T D');
    expect([B, D]).toEqual([2, 2]);
    expect(() => expectShape(of([2, 3]), 'N N')).toThrow('tensor must be [N, N], got [2, 3]');
    expect(() => expectShape(of([2, 3]), 'B 64', {}, 'x')).toThrow('x must be [B, 64], got [2, 3]');
    expect(() => expectShape(of([2, 3]), 'B T', { B: 4 })).toThrow('tensor must be [B=4, T], got [2, 3]');
    expect(() => expectShape(of([2, 3]), 'B')).toThrow(GraphError);
  });

  it('count from the end when negative', () => {
    expect([normalizeAxis(-1, 3), normalizeAxis(2, 3)]).toEqual([2, 2]);
    expect(() => normalizeAxis(1.5, 3)).toThrow(GraphError);
  });
});

/** Shapes must not depend on which tensor object names a value. */
describe('tensors', () => {
  it('are left as they are by operations that would change nothing', () => {
    const x: Tensor = of([2, 3]);
    expect([
      x.reshape([2, -1]),
      x.transpose([0, 1]),
      x.broadcastTo([2, 3]),
      x.slice(0, 0),
      x.cast('f32'),
      concat([x], 0),
    ]).toEqual(new Array(6).fill(x));
  });
});
