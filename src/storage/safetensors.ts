/**
 * Reading and writing safetensors files, a tensor at a time.
 *
 * Opening reads the header alone, so a file of any size opens in the memory of its header; a damaged or hostile file is
 * refused before anything is allocated for its tensors. Files are little-endian, like every platform Zoetrope runs on.
 */

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { attemptWrite, writeAtomically } from '../atomic-file.ts';
import { UserError } from '../errors.ts';
import type { DType } from '../tensor/dtype.ts';
import { bytesOf, type HostTensor, zeros } from '../tensor/host-tensor.ts';
import { formatType, type Shape, sameShape } from '../tensor/shape.ts';
import {
  byteLengthOf,
  maxHeaderBytes,
  nameForMessage,
  parseHeader,
  planHeader,
  type SafetensorsHeader,
  type StoredTensor,
} from './safetensors-header.ts';

/** An open safetensors file. Reads may overlap one another. Close it, or bind it with `await using`. */
export interface SafetensorsFile extends AsyncDisposable {
  /** The path it was opened with, for messages. */
  readonly path: string;
  /** What the file holds by name, in order of place in the file. Dtypes we have no tensors of are listed too. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The file's free text by key: where checkpoints keep their configuration. */
  readonly metadata: ReadonlyMap<string, string>;
  /**
   * Reads one tensor into memory of its own.
   * @throws UserError if there is none of that name, its dtype is not supported, a BOOL byte is neither 0 nor 1, it does
   * not fit in memory, or the file got shorter since it was opened.
   */
  read(name: string): Promise<HostTensor>;
  /**
   * Reads the bytes of one tensor, of any dtype, into `target`, which must be exactly as long.
   * @throws UserError as {@link read} does.
   * @throws RangeError if `target` has another length in bytes.
   */
  readInto(name: string, target: ArrayBufferView): Promise<void>;
  /** Closes the file. Closing twice does nothing. */
  close(): Promise<void>;
}

/** A tensor to be written: declared now, its values fetched when its turn comes. */
export interface SafetensorsEntry {
  /** Its name, unique in the file. */
  readonly name: string;
  /** Its dtype. */
  readonly dtype: DType;
  /** Its shape. */
  readonly shape: Shape;
  /** Gives the values: called once, when everything before it in the file is written; they may be dropped afterwards. */
  load(): HostTensor | Promise<HostTensor>;
}

// One system call cannot move more than 2^31 bytes; less keeps the memory that the runtime copies through small.
const chunkBytes = 2 ** 26;

/**
 * Opens a safetensors file and reads its header.
 * @throws UserError, one line naming the file (and the tensor, where it is one tensor's fault), if it is missing,
 * unreadable, not a regular file, or not a complete safetensors file.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const handle = await openForReading(path);
  try {
    const { header, dataStart } = await readHeader(handle, path);
    return openFile(handle, path, header, dataStart);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * Writes `entries` and `metadata` to `path`, replacing what is there only when all of it is on the disk.
 *
 * The file is built under a temporary name beside `path`, synchronised and renamed; a failure removes it and leaves
 * `path` as it was. Memory holds one tensor at a time. The bytes depend on names, values and metadata alone, not on their order,
 * and are those that the Python library writes.
 * @throws UserError, one line, if the entries cannot be put in one file (see `planHeader`), a tensor is not as declared,
 * or the target cannot be written. Errors of `load` pass through.
 */
export async function writeSafetensors(
  path: string,
  entries: Iterable<SafetensorsEntry>,
  metadata: ReadonlyMap<string, string> = new Map(),
): Promise<void> {
  const plan = planHeader([...entries], metadata, path);
  await writeAtomically(path, async (temporary) => {
    await using handle = await attemptWrite(path, () => open(temporary, 'wx'));
    await writeAll(handle, plan.bytes, path);
    for (const entry of plan.order) await writeAll(handle, bytesOf(await loadAsDeclared(entry, path)), path);
  });
}

/** An entry for a tensor that is in memory already. */
export function entryOf(name: string, tensor: HostTensor): SafetensorsEntry {
  return { name, dtype: tensor.dtype, shape: tensor.shape, load: () => tensor };
}

async function openForReading(path: string): Promise<FileHandle> {
  // Without O_NONBLOCK opening a named pipe waits for somebody to write to it.
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  return await attempt(path, 'cannot be opened', () => open(path, flags));
}

interface LocatedHeader {
  readonly header: SafetensorsHeader;
  /** Byte of the file at which the tensors' data begins. */
  readonly dataStart: number;
}

async function readHeader(handle: FileHandle, path: string): Promise<LocatedHeader> {
  const status = await handle.stat();
  if (!status.isFile()) throw new UserError(`${path}: this is not a regular file; give a .safetensors file`);
  const refuse = (problem: string): never => {
    throw new UserError(`${path}: ${problem}; this is no complete safetensors file`);
  };
  if (status.size < 8) refuse(`the file has ${status.size} bytes, too few for a header`);
  const prefix = new Uint8Array(8);
  await readAll(handle, prefix, 0, path);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes))
    refuse(`the header claims ${length} bytes, the format allows ${maxHeaderBytes}`);
  const dataStart = 8 + Number(length);
  if (dataStart > status.size)
    refuse(`the header claims ${length} bytes, the file has ${status.size} in all`);
  const text = new Uint8Array(Number(length));
  await readAll(handle, text, 8, path);
  return { header: parseHeader(text, status.size - dataStart, path), dataStart };
}

function openFile(
  handle: FileHandle,
  path: string,
  { tensors, metadata }: SafetensorsHeader,
  dataStart: number,
): SafetensorsFile {
  const find = (name: string): StoredTensor => {
    const tensor = tensors.get(name);
    if (tensor !== undefined) return tensor;
    throw new UserError(
      `${path}: there is no tensor ${nameForMessage(name)}; the file has ${tensors.size} others`,
    );
  };
  const read = async (name: string): Promise<HostTensor> => {
    const stored = find(name);
    const label = `${path}: tensor ${nameForMessage(name)}`;
    if (stored.dtype === undefined) {
      throw new UserError(
        `${label}: dtype ${stored.storedDtype} is not supported; convert it to F32, F16, BF16 or I32`,
      );
    }
    const tensor = allocate(stored.dtype, stored, label);
    await readAll(handle, tensor.data, dataStart + stored.begin, path);
    if (tensor.dtype === 'bool' && tensor.data.some((byte) => byte > 1)) {
      throw new UserError(`${label}: a BOOL is neither 0 nor 1; the file is damaged`);
    }
    return tensor;
  };
  const readInto = async (name: string, target: ArrayBufferView): Promise<void> => {
    const stored = find(name);
    if (target.byteLength !== stored.byteLength) {
      throw new RangeError(
        `${path}: tensor ${nameForMessage(name)} has ${stored.byteLength} bytes, the target ${target.byteLength}`,
      );
    }
    await readAll(handle, target, dataStart + stored.begin, path);
  };
  const close = () => handle.close();
  return { path, tensors, metadata, read, readInto, close, [Symbol.asyncDispose]: close };
}

function allocate(dtype: DType, { shape, byteLength }: StoredTensor, label: string): HostTensor {
  try {
    return zeros(dtype, shape);
  } catch {
    // The header cannot claim more than the file has, but a sparse file has as much as it likes.
    throw new UserError(`${label}: its ${byteLength} bytes do not fit in memory`);
  }
}

async function loadAsDeclared(entry: SafetensorsEntry, path: string): Promise<HostTensor> {
  const tensor = await entry.load();
  const same = tensor.dtype === entry.dtype && sameShape(tensor.shape, entry.shape);
  if (!same || tensor.data.byteLength !== byteLengthOf(entry)) {
    throw new UserError(
      `${path}: tensor ${nameForMessage(entry.name)} was declared ${formatType(entry)}, but is ${formatType(tensor)} of ${tensor.data.byteLength} bytes`,
    );
  }
  return tensor;
}

/** Fills `target` from byte `position` of the file. */
async function readAll(
  handle: FileHandle,
  target: ArrayBufferView,
  position: number,
  path: string,
): Promise<void> {
  const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(chunkBytes, bytes.length - done);
    const { bytesRead } = await attempt(path, 'cannot be read', () =>
      handle.read(bytes, done, length, position + done),
    );
    if (bytesRead === 0) throw new UserError(`${path}: the file got shorter while it was read; try again`);
    done += bytesRead;
  }
}

/** Appends `bytes` to the file. */
async function writeAll(handle: FileHandle, bytes: Uint8Array, path: string): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(chunkBytes, bytes.length - done);
    const { bytesWritten } = await attemptWrite(path, () => handle.write(bytes, done, length));
    done += bytesWritten;
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder; check the path',
  EACCES: 'permission denied; change its permissions or the path',
  EPERM: 'permission denied; change its permissions or the path',
  ENOTDIR: 'a part of the path is a file, not a folder; check the path',
  EISDIR: 'it is a folder; give the path of a file',
};

/** Runs an operation that reads; a failure of the system becomes one line that starts with `path` and the `problem`. */
async function attempt<T>(path: string, problem: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`${path}: ${problem}: ${reasons[code] ?? code}`, { cause: error });
  }
}
