import { maxDynamicSharedBytes } from './bindings/driver.ts';
import { NativeMemory } from './bindings/native.ts';
import { Compiler } from './bindings/nvrtc.ts';
import type { Device } from './device.ts';
import { DiskCache } from './disk-cache.ts';
import type { Kernel } from './kernel.ts';

/** Dynamic shared memory that every kernel may have without asking. */
const freeSharedBytes = 48 * 1024;

/** Kernels compiled at the same time; more would wait for worker threads. */
const compilers = 16;

/** Queues a kernel on the pointers that it was bound to. */
export type Launch = () => void;

/** Kernels compiled for one GPU, in memory and on disk. */
export class KernelCache {
  private readonly device: Device;
  private readonly compiler = new Compiler();
  private readonly prelude: string;
  private readonly loading = new Map<string, Promise<void>>();
  private readonly functions = new Map<string, bigint>();
  private readonly modules: bigint[] = [];
  private readonly compiled = new DiskCache('kernels', 'cubin');

  /** @param prelude source that stands before every kernel. */
  constructor(device: Device, prelude: string) {
    this.device = device;
    this.prelude = prelude;
  }

  /** Compiles and loads what is not known yet, several at a time. */
  async prepare(kernels: readonly Kernel[]): Promise<void> {
    const unknown = new Map(
      kernels.flatMap((kernel) => (this.loading.has(kernel.name) ? [] : [[kernel.name, kernel] as const])),
    );
    const pending = [...unknown.values()];
    const workers = Array.from({ length: Math.min(compilers, pending.length) }, async () => {
      for (let kernel = pending.pop(); kernel !== undefined; kernel = pending.pop()) {
        const loading = this.load(kernel);
        this.loading.set(kernel.name, loading);
        await loading;
      }
    });
    await Promise.all(workers);
    await Promise.all(kernels.map(({ name }) => this.loading.get(name)));
  }

  /** The `CUfunction` of a prepared kernel, which lives as long as this. */
  functionOf({ name }: Kernel): bigint {
    const handle = this.functions.get(name);
    if (handle === undefined) throw new Error(`kernel ${name} was not prepared`);
    return handle;
  }

  /** A launch of a prepared kernel on fixed addresses. */
  bind(kernel: Kernel, addresses: readonly bigint[]): Launch {
    const handle = this.functionOf(kernel);
    const { driver, stream } = this.device;
    // The driver wants the addresses of the parameters; each parameter is an address.
    const values = NativeMemory.pointers(addresses);
    const parameters = NativeMemory.pointers(addresses.map((_, index) => values.address + BigInt(8 * index)));
    const [grid, block] = [kernel.grid, kernel.block];
    return () => {
      const status = driver.cuLaunchKernel(
        handle,
        ...grid,
        ...block,
        kernel.sharedBytes,
        stream,
        values.bytes.length > 0 ? parameters.bytes : null,
        null,
      );
      driver.check(status, `launch ${kernel.name}`);
    };
  }

  /** Unloads everything. */
  dispose(): void {
    for (const module of this.modules) this.device.driver.cuModuleUnload(module);
  }

  private async load({ name, source, sharedBytes }: Kernel): Promise<void> {
    const code = await this.machineCode(name, `${this.prelude}\n${source}`);
    const { driver } = this.device;
    const [out, text] = [new NativeMemory(8), NativeMemory.text(name)];
    driver.check(driver.cuModuleLoadData(out.bytes, code), `load ${name}`);
    const module = out.pointer();
    this.modules.push(module);
    driver.check(driver.cuModuleGetFunction(out.bytes, module, text.bytes), `find ${name}`);
    const handle = out.pointer();
    if (sharedBytes > freeSharedBytes) {
      const status = driver.cuFuncSetAttribute(handle, maxDynamicSharedBytes, sharedBytes);
      driver.check(status, `${name}: ${sharedBytes} bytes of shared memory`);
    }
    this.functions.set(name, handle);
  }

  private async machineCode(name: string, source: string): Promise<Uint8Array> {
    const { architecture } = this.device;
    const key = `${architecture}\n${this.compiler.version}\n${source}`;
    const known = this.compiled.read(key);
    if (known !== undefined) return known;
    const code = await this.compiler.compile(source, architecture).catch((error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      throw new Error(`kernel ${name}: ${message}\n${source}`);
    });
    this.compiled.write(key, code);
    return code;
  }
}
