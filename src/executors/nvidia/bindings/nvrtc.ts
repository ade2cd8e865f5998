import { loadLibrary, siblings } from './discovery.ts';
import { callAsync, NativeMemory, preload, textAt } from './native.ts';

const prototypes = {
  nvrtcVersion: ['int', 'pointer', 'pointer'],
  nvrtcCreateProgram: ['int', 'pointer', 'pointer', 'pointer', 'int', 'pointer', 'pointer'],
  nvrtcCompileProgram: ['int', 'pointer', 'int', 'pointer'],
  nvrtcGetCUBINSize: ['int', 'pointer', 'pointer'],
  nvrtcGetCUBIN: ['int', 'pointer', 'pointer'],
  nvrtcGetProgramLogSize: ['int', 'pointer', 'pointer'],
  nvrtcGetProgramLog: ['int', 'pointer', 'pointer'],
  nvrtcDestroyProgram: ['int', 'pointer'],
  nvrtcGetErrorString: ['pointer', 'int'],
} as const;

/** Compiles CUDA C++ to machine code of one architecture. */
export class Compiler {
  readonly path: string;
  readonly version: string;
  private readonly nvrtc: ReturnType<typeof loadLibrary<typeof prototypes>>['functions'];
  private readonly options = new Map<string, { list: NativeMemory; count: number; texts: NativeMemory[] }>();

  /** @throws Error when NVRTC is not installed. */
  constructor() {
    const { path, functions } = loadLibrary('nvrtc', prototypes);
    this.path = path;
    this.nvrtc = functions;
    // NVRTC looks for its built-ins by name, which finds nothing in a Python package's folder.
    siblings(path, 'libnvrtc-builtins.so').forEach(preload);
    const version = new NativeMemory(8);
    this.check(functions.nvrtcVersion(version.bytes, version.bytes.subarray(4)), 'nvrtcVersion');
    this.version = `${version.int()}.${version.int(4)}`;
  }

  /**
   * Machine code (a cubin) of a program, compiled on a worker thread.
   * @param architecture such as `sm_90a`.
   * @throws Error with the compiler's log.
   */
  async compile(source: string, architecture: string): Promise<Uint8Array> {
    const { nvrtc } = this;
    const [text, name, handle] = [
      NativeMemory.text(source),
      NativeMemory.text('zoetrope.cu'),
      new NativeMemory(8),
    ];
    const created = nvrtc.nvrtcCreateProgram(handle.bytes, text.bytes, name.bytes, 0, null, null);
    this.check(created, 'nvrtcCreateProgram');
    const program = handle.pointer();
    try {
      const { list, count } = this.optionsFor(architecture);
      const status = await callAsync(nvrtc.nvrtcCompileProgram, program, count, list.bytes);
      if (status !== 0) throw new Error(`${this.describe(status)}\n${this.log(program)}`);
      const size = new NativeMemory(8);
      this.check(nvrtc.nvrtcGetCUBINSize(program, size.bytes), 'nvrtcGetCUBINSize');
      const cubin = new NativeMemory(size.size());
      this.check(nvrtc.nvrtcGetCUBIN(program, cubin.bytes), 'nvrtcGetCUBIN');
      return cubin.bytes;
    } finally {
      nvrtc.nvrtcDestroyProgram(handle.bytes);
    }
  }

  /** Options for an architecture; kept, since the list holds only their addresses. */
  private optionsFor(architecture: string): { readonly list: NativeMemory; readonly count: number } {
    const known = this.options.get(architecture);
    if (known !== undefined) return known;
    const texts = [`--gpu-architecture=${architecture}`, '-std=c++17', '-default-device'].map(
      NativeMemory.text,
    );
    const made = {
      list: NativeMemory.pointers(texts.map(({ address }) => address)),
      count: texts.length,
      texts,
    };
    this.options.set(architecture, made);
    return made;
  }

  private log(program: bigint): string {
    const size = new NativeMemory(8);
    if (this.nvrtc.nvrtcGetProgramLogSize(program, size.bytes) !== 0) return '';
    const log = new NativeMemory(size.size() + 1);
    return this.nvrtc.nvrtcGetProgramLog(program, log.bytes) === 0 ? textAt(log.address) : '';
  }

  private describe(status: number): string {
    return textAt(this.nvrtc.nvrtcGetErrorString(status)) || `NVRTC error ${status}`;
  }

  private check(status: number, action: string): void {
    if (status !== 0) throw new Error(`${action}: ${this.describe(status)}`);
  }
}
