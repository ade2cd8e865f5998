import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { fold, keyFromSeed, RandomStream } from '../../src/random/philox.ts';
import { openSafetensors } from '../../src/storage/safetensors.ts';

let folder = '';
let path = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-hostile-'));
  path = join(folder, 'bad.safetensors');
});
afterAll(() => rm(folder, { recursive: true }));

/** A file with this header text (or header bytes) and `dataLength` bytes of data. */
function fileOf(header: string | Buffer, dataLength = 0, claimed?: bigint): Buffer {
  const text = Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimed ?? BigInt(text.length));
  return Buffer.concat([prefix, text, Buffer.alloc(dataLength, 1)]);
}

/** A header of one tensor `t`, its fields replaced by `fields`. */
function one(fields: Record<string, unknown>): string {
  return JSON.stringify({ t: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } });
}

async function failureOf(target: string): Promise<Error> {
  try {
    await using file = await openSafetensors(target);
    for (const name of file.tensors.keys()) await file.read(name);
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error('it opened');
}

function expectOneLine(error: Error, target: string): void {
  expect(error).toBeInstanceOf(UserError);
  expect(error.message.startsWith(`${target}: `)).toBe(true);
  expect(error.message).not.toContain('\n');
  expect(error.message.length).toBeLessThan(target.length + 400);
}

const u = '"shape":[2],"data_offsets":[0,8]';
const many = (count: number, of: string) => new Array(count).fill(of).join(',');
const damaged: [string, Buffer, string][] = [
  ['nothing', Buffer.alloc(0), 'the file has 0 bytes, too few for a header'],
  ['seven bytes', Buffer.alloc(7), 'the file has 7 bytes'],
  ['a header length of zero', Buffer.alloc(8), 'expected {, found the end'],
  ['a header beyond the file', fileOf('{}', 0, 3n), 'the header claims 3 bytes, the file has 10 in all'],
  ['a header length of -1', fileOf('{}', 0, 2n ** 64n - 1n), 'the header claims 18446744073709551615 bytes'],
  [
    'a header length of 2^53 + 1',
    fileOf('{}', 0, 2n ** 53n + 1n),
    'the header claims 9007199254740993 bytes',
  ],
  ['a header one over the limit', fileOf('{}', 0, 100_000_001n), 'the format allows 100000000'],
  ['no JSON', fileOf('hello'), 'expected {, found "h"'],
  ['an array', fileOf('[]'), 'expected {, found "["'],
  ['white space first', fileOf(' {}x'), 'unexpected "x"'],
  ['a byte order mark', fileOf('\ufeff{}'), 'expected {'],
  ['broken UTF-8', fileOf(Buffer.from([0x7b, 0xff, 0x7d])), 'it is not UTF-8 text'],
  ['an object cut short', fileOf('{"t":{"dtype":"F32",'), 'expected ", found the end'],
  ['a string cut short', fileOf('{"t'), 'a string does not end'],
  ['a string cut in an escape', fileOf('{"t\\'), 'a string does not end'],
  ['an unknown escape', fileOf('{"\\x":1}'), 'a string is not valid JSON'],
  ['a control character in a string', fileOf('{"a\nb":1}'), 'a string is not valid JSON'],
  ['half a surrogate pair', fileOf('{"\\ud800":1}'), 'a string is not valid JSON'],
  ['a trailing comma', fileOf('{"__metadata__":{},}'), 'expected ", found "}"'],
  ['deep nesting', fileOf('{"t":'.repeat(100_000)), 'has a repeated or unknown field "t"'],
  ['a sea of arrays', fileOf(`{"t":{"shape":[${many(100_000, '[]')}]}}`), 'expected a non-negative integer'],
  ['numbers for tensors', fileOf('{"t":1}'), 'expected {, found "1"'],
  ['null', fileOf('{"t":null}'), 'expected {'],
  ['a name twice', fileOf(`{"t":{"dtype":"F32",${u}},"t":{"dtype":"F32",${u}}}`, 8), '"t" is there twice'],
  [
    'a name twice in disguise',
    fileOf(`{"t":{"dtype":"F32",${u}},"\\u0074":{"dtype":"F32",${u}}}`, 8),
    '"t" is there twice',
  ],
  [
    '__proto__ twice',
    fileOf(`{"__proto__":{"dtype":"F32",${u}},"__proto__":{"dtype":"F32",${u}}}`, 8),
    '"__proto__" is there twice',
  ],
  ['metadata twice', fileOf('{"__metadata__":{},"__metadata__":{}}'), '"__metadata__" is there twice'],
  ['a metadata key twice', fileOf('{"__metadata__":{"a":"1","a":"2"}}'), 'metadata key "a" is there twice'],
  ['metadata that is no text', fileOf('{"__metadata__":{"a":1}}'), 'expected ", found "1"'],
  [
    'a field twice',
    fileOf(`{"t":{"dtype":"F32","dtype":"F32",${u}}}`, 8),
    'tensor "t" has a repeated or unknown field "dtype"',
  ],
  [
    'an unknown field',
    fileOf(one({ strides: [1] }), 8),
    'tensor "t" has a repeated or unknown field "strides"',
  ],
  ['no dtype', fileOf(`{"t":{${u}}}`, 8), 'tensor "t" lacks its dtype'],
  [
    'no shape',
    fileOf('{"t":{"dtype":"F32","data_offsets":[0,8]}}', 8),
    'tensor "t" lacks its dtype, its shape',
  ],
  ['no offsets', fileOf('{"t":{"dtype":"F32","shape":[2]}}', 8), 'tensor "t" lacks'],
  ['one offset', fileOf(one({ data_offsets: [0] }), 8), 'tensor "t" lacks'],
  ['three offsets', fileOf(one({ data_offsets: [0, 8, 8] }), 8), 'more than 2 numbers in a list'],
  ['an unknown dtype', fileOf(one({ dtype: 'Q4_0' }), 8), 'tensor "t" has the unknown dtype "Q4_0"'],
  [
    'a dtype of a prototype',
    fileOf(one({ dtype: 'constructor' }), 8),
    'tensor "t" has the unknown dtype "constructor"',
  ],
  ['a dtype in small letters', fileOf(one({ dtype: 'f32' }), 8), 'tensor "t" has the unknown dtype "f32"'],
  ['a negative size', fileOf(one({ shape: [-2] }), 8), 'expected a non-negative integer, found "-"'],
  ['a fractional size', fileOf(one({ shape: [2.5] }), 8), 'expected ], found "."'],
  ['an exponent', fileOf('{"t":{"shape":[1e3]}}'), 'expected ], found "e"'],
  ['a leading zero', fileOf('{"t":{"shape":[02]}}'), '02 is not an integer'],
  [
    'a size beyond 2^53',
    fileOf('{"t":{"shape":[9007199254740993]}}'),
    '9007199254740993 is not an integer below 2^53',
  ],
  [
    'a number of 10,000 digits',
    fileOf(`{"t":{"shape":[${'9'.repeat(10_000)}]}}`),
    '... is not an integer below 2^53',
  ],
  [
    'a shape product past 2^53',
    fileOf(one({ shape: [2 ** 31, 2 ** 31] }), 8),
    'tensor "t" has a shape of more than 2^53 bits',
  ],
  [
    'a shape product that wraps to 0',
    fileOf(one({ shape: [2 ** 32, 2 ** 32], data_offsets: [0, 0] })),
    'more than 2^53 bits',
  ],
  ['65 axes', fileOf(one({ shape: new Array(65).fill(1) }), 8), 'more than 64 numbers in a list'],
  [
    'fewer bytes than the shape',
    fileOf(one({ data_offsets: [0, 4] }), 4),
    'tensor "t" has 4 bytes where F32[2] takes 8',
  ],
  [
    'more bytes than the shape',
    fileOf(one({ shape: [1] }), 8),
    'tensor "t" has 8 bytes where F32[1] takes 4',
  ],
  [
    'half a byte',
    fileOf(one({ dtype: 'F4', shape: [3], data_offsets: [0, 2] }), 2),
    'tensor "t" does not fill whole bytes with F4[3]',
  ],
  [
    'an end before the start',
    fileOf(one({ data_offsets: [8, 0] }), 8),
    'tensor "t" ends at byte 0, before it begins at 8',
  ],
  ['data cut short', fileOf(one({}), 7), 'tensor "t" ends at byte 8 of the 7 bytes of data'],
  [
    'a giant tensor in a small file',
    fileOf(one({ shape: [2 ** 40], data_offsets: [0, 2 ** 42] }), 8),
    'tensor "t" ends at byte 4398046511104 of the 8 bytes',
  ],
  ['bytes left over', fileOf(one({}), 9), '1 bytes follow the last tensor'],
  ['data without tensors', fileOf('{}', 1), '1 bytes follow the last tensor'],
  [
    'a gap at the start',
    fileOf(one({ data_offsets: [1, 9] }), 9),
    'tensor "t" begins at byte 1 and leaves 1 bytes before it unused',
  ],
  [
    'a gap',
    fileOf(`{"a":{"dtype":"F32",${u}},"b":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}}`, 10),
    'tensor "b" begins at byte 9 and leaves 1 bytes',
  ],
  [
    'an overlap',
    fileOf(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[7,8]},"a":{"dtype":"F32",${u}}}`, 8),
    'tensor "b" begins at byte 7, inside the tensor before it',
  ],
  [
    'one range for two tensors',
    fileOf(`{"b":{"dtype":"F32",${u}},"a":{"dtype":"F32",${u}}}`, 8),
    'begins at byte 0, inside the tensor before it',
  ],
  [
    'a BOOL of 2',
    Buffer.concat([fileOf(one({ dtype: 'BOOL', shape: [2], data_offsets: [0, 2] }), 1), Buffer.of(2)]),
    'tensor "t": a BOOL is neither 0 nor 1',
  ],
  ['a name of a megabyte', fileOf(`{"${'n'.repeat(1_000_000)}":{}}`), 'lacks its dtype'],
  ['a name full of line feeds', fileOf(`{"${'\\n'.repeat(100)}":{}}`), 'lacks its dtype'],
];

describe('damaged files', () => {
  it.each(damaged)('%s', async (_, bytes, message) => {
    await writeFile(path, bytes);
    const error = await failureOf(path);
    expect(error.message).toContain(message);
    expectOneLine(error, path);
  });

  it('100 MB of zeros', async () => {
    await writeFile(path, '');
    await truncate(path, 100_000_000);
    const error = await failureOf(path);
    expect(error.message).toContain('the header is damaged');
    expectOneLine(error, path);
  });

  it('a header of 99 MB in which nothing is what it should be', async () => {
    await writeFile(path, fileOf(`{"t":{"dtype":"F32","shape":[${'[],'.repeat(33_000_000)}`));
    expectOneLine(await failureOf(path), path);
  });

  it('a tensor as large as its sparse file and larger than memory', async (context) => {
    const bytes = 2 ** 40;
    const start = fileOf(one({ shape: [bytes / 4], data_offsets: [0, bytes] }));
    await writeFile(path, start);
    const fits = await truncate(path, start.length + bytes).then(
      () => true,
      () => false,
    );
    if (!fits) return context.skip('this file system has no sparse files of 1 TB');
    const error = await failureOf(path);
    await rm(path);
    expect(error.message).toBe(`${path}: tensor "t": its 1099511627776 bytes do not fit in memory`);
  });

  it('a file that gets shorter while it is open', async () => {
    await writeFile(path, fileOf(one({}), 8));
    await using file = await openSafetensors(path);
    await truncate(path, 20);
    await expect(file.read('t')).rejects.toThrow(
      `${path}: the file got shorter while it was read; try again`,
    );
  });
});

describe('what is no file', () => {
  const refusal = 'this is not a regular file; give a .safetensors file';

  it('a missing file, and a path through a file', async () => {
    const missing = join(folder, 'missing.safetensors');
    expect((await failureOf(missing)).message).toBe(
      `${missing}: cannot be opened: no such file or folder; check the path`,
    );
    await writeFile(path, '');
    expectOneLine(await failureOf(join(path, 'x')), join(path, 'x'));
  });

  it('a folder', async () => {
    const target = join(folder, 'folder.safetensors');
    await mkdir(target);
    expect((await failureOf(target)).message).toBe(`${target}: ${refusal}`);
  });

  it('a named pipe nobody writes to does not hang', async (context) => {
    const target = join(folder, 'pipe.safetensors');
    try {
      execFileSync('mkfifo', [target]);
    } catch {
      return context.skip('this system has no mkfifo');
    }
    expect((await failureOf(target)).message).toBe(`${target}: ${refusal}`);
  });

  it('an endless device', async (context) => {
    const device = await open('/dev/zero').catch(() => undefined);
    if (device === undefined) return context.skip('this system has no /dev/zero');
    await device.close();
    expect((await failureOf('/dev/zero')).message).toBe(`/dev/zero: ${refusal}`);
  });
});

describe('fuzzing', () => {
  const header = JSON.stringify({
    __metadata__: { config: '{"a": [1, 2]}' },
    weight: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
    ids: { dtype: 'I64', shape: [1], data_offsets: [24, 32] },
    half: { dtype: 'BF16', shape: [2], data_offsets: [32, 36] },
    mask: { dtype: 'BOOL', shape: [4], data_offsets: [36, 40] },
  });
  const whole = fileOf(header, 40);
  const json = /[{}[\]",:0-9]/;

  /** Each of these makes one change at a random place. */
  const mutations: ((bytes: Buffer, random: RandomStream) => Buffer)[] = [
    (bytes, random) => bytes.subarray(0, random.int(bytes.length)),
    (bytes, random) => Buffer.concat([bytes, Buffer.alloc(1 + random.int(20), random.int(256))]),
    (bytes, random) => {
      const at = random.int(bytes.length);
      bytes[at]! ^= 1 << random.int(8);
      return bytes;
    },
    (bytes, random) => {
      bytes[random.int(8)] = random.int(256);
      return bytes;
    },
    (bytes, random) => {
      // One structural character or digit of the header for another.
      const at = 8 + random.int(header.length);
      if (json.test(String.fromCharCode(bytes[at]!))) bytes.write(random.pick([...'{}[]",:0123456789']), at);
      return bytes;
    },
    (bytes, random) => {
      // A piece of the header over another place in it.
      const from = 8 + random.int(header.length);
      bytes.copyWithin(
        8 + random.int(header.length),
        from,
        Math.min(from + 1 + random.int(30), 8 + header.length),
      );
      return bytes;
    },
  ];

  it('4,000 mutated files: one clear error, or a file whose tensors fill it exactly; memory within the file size', async () => {
    const random = new RandomStream(fold(keyFromSeed(2), 'fuzz'));
    let opened = 0;
    const Original = Uint8Array;
    for (let round = 0; round < 4000; round++) {
      const position = random.position;
      let bytes: Buffer = Buffer.from(whole);
      for (let i = random.int(3); i >= 0; i--) bytes = random.pick(mutations)(bytes, random);
      await writeFile(path, bytes);
      let largest = 0;
      globalThis.Uint8Array = new Proxy(Original, {
        construct(target, args, newTarget) {
          if (typeof args[0] === 'number') largest = Math.max(largest, args[0]);
          return Reflect.construct(target, args, newTarget);
        },
      });
      try {
        await using file = await openSafetensors(path);
        let end = 0;
        for (const { name, dtype, begin, byteLength } of file.tensors.values()) {
          expect(begin).toBe(end);
          end += byteLength;
          if (dtype !== undefined) expect((await file.read(name)).data.byteLength).toBe(byteLength);
        }
        expect(end).toBeLessThanOrEqual(bytes.length - 8);
        opened++;
      } catch (error) {
        if (!(error instanceof UserError))
          throw new Error(`at stream position ${position}`, { cause: error });
        expectOneLine(error, path);
      } finally {
        globalThis.Uint8Array = Original;
      }
      expect(largest).toBeLessThanOrEqual(Math.max(8, bytes.length));
    }
    // Changes of data, names and metadata are no damage: the fuzzer reaches past the header now and then.
    expect(opened).toBeGreaterThan(100);
    expect(opened).toBeLessThan(2000);
  });
});
