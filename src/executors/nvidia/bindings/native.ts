import koffi from 'koffi';

// koffi runs C functions on stacks of its own: 2 MiB for plain calls, 128 KiB for asynchronous ones. NVRTC and cuDNN's
// compiler need more. The sizes are read once, by the first load.
koffi.config({
  ...koffi.config(),
  sync_stack_size: 16 << 20,
  sync_heap_size: 4 << 20,
  async_stack_size: 16 << 20,
  async_heap_size: 1 << 20,
});

/**
 * What C types are in TypeScript, as arguments: handles and device addresses are pointers, and so are bytes of the
 * host, which a call keeps alive while it runs; their bare address would not. `bytes128` is passed by value.
 */
interface ArgumentTypes {
  int: number;
  uint: number;
  byte: number;
  size: number | bigint;
  int64: number | bigint;
  pointer: bigint | Uint8Array | null;
  bytes128: { readonly bytes: Uint8Array };
}

/** The same as results. */
interface ResultTypes {
  int: number;
  size: number | bigint;
  pointer: bigint | null;
  void: undefined;
}

const cNames: Readonly<Record<keyof ArgumentTypes | keyof ResultTypes, string>> = {
  int: 'int',
  uint: 'unsigned int',
  byte: 'uint8_t',
  size: 'size_t',
  int64: 'int64_t',
  pointer: 'void *',
  bytes128: 'bytes128',
  void: 'void',
};

// A structure of 128 bytes, passed by value.
koffi.struct('bytes128', { bytes: koffi.array('uint8_t', 128, 'Typed') });

/** A C prototype: the result's type, then the parameters'. */
export type Prototype = readonly [result: keyof ResultTypes, ...parameters: (keyof ArgumentTypes)[]];

/** A C function. `async` runs it on a worker thread, which has no CUDA context: use it only to wait or to compile. */
export interface NativeFunction<Parameters extends unknown[], Result> {
  (...values: Parameters): Result;
  readonly async: (
    ...values: [...Parameters, done: (error: Error | null, result: Result) => void]
  ) => undefined;
}

/** The functions of a table of prototypes. */
export type Bound<Prototypes extends Readonly<Record<string, Prototype>>> = {
  readonly [Name in keyof Prototypes]: Prototypes[Name] extends readonly [
    infer R extends keyof ResultTypes,
    ...infer P extends (keyof ArgumentTypes)[],
  ]
    ? NativeFunction<{ [I in keyof P]: ArgumentTypes[P[I]] }, ResultTypes[R]>
    : never;
};

/**
 * Loads a shared library and binds functions of it.
 * @throws Error of koffi when the file cannot be loaded or lacks a function.
 */
export function bindLibrary<const Prototypes extends Readonly<Record<string, Prototype>>>(
  path: string,
  prototypes: Prototypes,
): Bound<Prototypes> {
  const library = koffi.load(path, { lazy: true });
  const bound = Object.entries(prototypes).map(([name, [result, ...parameters]]) => [
    name,
    library.func(
      name,
      cNames[result],
      parameters.map((type) => cNames[type]),
    ),
  ]);
  return Object.fromEntries(bound) as Bound<Prototypes>;
}

/** Loads a library for those that look for it by name. False when it cannot be loaded. */
export function preload(path: string): boolean {
  try {
    koffi.load(path, { lazy: true });
    return true;
  } catch {
    return false;
  }
}

/** Calls a C function on a worker thread. */
export function callAsync<Parameters extends unknown[], Result>(
  call: NativeFunction<Parameters, Result>,
  ...values: Parameters
): Promise<Result> {
  return new Promise((resolve, reject) => {
    call.async(...values, (error, result) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}

/**
 * Host memory that C reads and writes. An address keeps nothing alive: whoever hands out `address` keeps the object for
 * as long as C may use it.
 */
export class NativeMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: bigint;

  /** Zeroed memory. */
  constructor(byteLength: number) {
    this.bytes = new Uint8Array(new ArrayBuffer(Math.max(byteLength, 16)));
    this.view = new DataView(this.bytes.buffer);
    this.address = koffi.address(this.bytes);
  }

  /** Handles or addresses, one after the other. */
  static pointers(values: readonly bigint[]): NativeMemory {
    const memory = new NativeMemory(8 * values.length);
    values.forEach((value, index) => {
      memory.view.setBigUint64(8 * index, value, true);
    });
    return memory;
  }

  /** 64-bit integers. */
  static integers(values: readonly number[]): NativeMemory {
    return NativeMemory.pointers(values.map((value) => BigInt.asUintN(64, BigInt(value))));
  }

  /** One 32-bit integer. */
  static int(value: number): NativeMemory {
    const memory = new NativeMemory(4);
    memory.view.setInt32(0, value, true);
    return memory;
  }

  /** One 32-bit float. */
  static float(value: number): NativeMemory {
    const memory = new NativeMemory(4);
    memory.view.setFloat32(0, value, true);
    return memory;
  }

  /** A string with its closing zero. */
  static text(value: string): NativeMemory {
    const encoded = new TextEncoder().encode(value);
    const memory = new NativeMemory(encoded.length + 1);
    memory.bytes.set(encoded);
    return memory;
  }

  /** The 32-bit integer at a byte offset. */
  int(offset = 0): number {
    return this.view.getInt32(offset, true);
  }

  /** The 32-bit float at a byte offset. */
  float(offset = 0): number {
    return this.view.getFloat32(offset, true);
  }

  /** The handle or address at a byte offset. */
  pointer(offset = 0): bigint {
    return this.view.getBigUint64(offset, true);
  }

  /** The 64-bit integer at a byte offset, as a number. */
  size(offset = 0): number {
    return Number(this.view.getBigInt64(offset, true));
  }
}

/** Where shared memory lies. It does not move, but whoever uses the address keeps the memory. */
export function addressOf(memory: SharedArrayBuffer): bigint {
  return koffi.address(memory);
}

/** Memory of the system, such as pinned memory of the driver, as bytes. */
export function bytesAt(address: bigint, byteLength: number): Uint8Array {
  return new Uint8Array(koffi.view(address, byteLength));
}

/** The string at an address; empty for a null pointer. */
export function textAt(address: bigint | null): string {
  return address === null || address === 0n ? '' : koffi.decode.string(address);
}
