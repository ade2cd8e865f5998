import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bindLibrary, NativeMemory } from '../../../../src/executors/nvidia/bindings/native.ts';
import type { Kernel } from '../../../../src/executors/nvidia/kernel.ts';

const header = readFileSync(join(import.meta.dirname, 'cuda.h'), 'utf8');

/** Why kernels cannot be compiled here; undefined when they can. */
export function missingCompiler(): string | undefined {
  const { error, status } = spawnSync('g++', ['--version']);
  return error === undefined && status === 0 ? undefined : 'needs g++ (apt-get install g++)';
}

/** Kernels compiled for the CPU. */
export class CpuKernels implements Disposable {
  private readonly folder: string;
  private readonly launches = new Map<string, (kernel: Kernel, addresses: readonly bigint[]) => void>();

  private constructor(folder: string) {
    this.folder = folder;
  }

  /**
   * Compiles kernels, each once, in as many libraries as there are cores here.
   * @throws Error with the compiler's output.
   */
  static async compile(prelude: string, kernels: Iterable<Kernel>, parts = 2): Promise<CpuKernels> {
    const unique = [...new Map([...kernels].map((kernel) => [kernel.name, kernel])).values()];
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-kernels-'));
    const compiled = new CpuKernels(folder);
    try {
      const shares = Array.from({ length: parts }, (_, part) => unique.filter((_, i) => i % parts === part));
      await Promise.all(shares.map((share, part) => compiled.add(prelude, share, `part${part}`)));
      return compiled;
    } catch (error) {
      compiled[Symbol.dispose]();
      throw error;
    }
  }

  /** Runs a kernel on addresses in this process. */
  run(kernel: Kernel, addresses: readonly bigint[]): void {
    const launch = this.launches.get(kernel.name);
    if (launch === undefined) throw new Error(`kernel ${kernel.name} was not compiled`);
    launch(kernel, addresses);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async add(prelude: string, kernels: readonly Kernel[], name: string): Promise<void> {
    const [source, library] = [join(this.folder, `${name}.cc`), join(this.folder, `${name}.so`)];
    writeFileSync(source, sourceOf(prelude, kernels));
    await gcc(['-O1', '-w', '-shared', '-fPIC', '-fno-gnu-unique', '-std=c++17', '-o', library, source]);
    const { launch } = bindLibrary(library, {
      launch: ['int', 'int', 'pointer', 'uint', 'uint', 'uint', 'uint', 'uint', 'uint'],
    });
    kernels.forEach((kernel, index) => {
      this.launches.set(kernel.name, ({ grid, block }, addresses) => {
        const pointers = NativeMemory.pointers(addresses);
        if (launch(index, pointers.bytes, ...grid, ...block) !== 0)
          throw new Error(`kernel ${kernel.name}: threads wait for each other without end`);
      });
    });
  }
}

/** One C++ file: the stand-in for CUDA, the prelude, the kernels, and a table of them. */
export function sourceOf(prelude: string, kernels: readonly Kernel[]): string {
  const table = kernels.map(
    ({ name, source }) =>
      `  { [](void** a) { stand_in::call(${name}, a); }, ${/__sync|__shfl|warp_|block_|lanes_/.test(source)} },`,
  );
  return [
    header,
    withoutAssembly(prelude),
    ...kernels.map(({ source }) =>
      source
        .replace(
          /extern __shared__ (\w+) (\w+)\[\];/,
          (_, type, name) => `${type}* ${name} = (${type}*)stand_in::dynamic_shared;`,
        )
        .replace(
          /asm\("cvt\.rn\.bf16x2\.f32 .*?" : "=r"\((\w+)\) : "f"\((\w+)\), "f"\((\w+)\)\);/,
          (_, pair, high, low) => `${pair} = bf16_pair(${low}, ${high});`,
        )
        .replace(
          /asm\("cvt\.rn\.bf16\.f32 .*?" : "=h"\((.*?)\) : "f"(\(.*\))\);/,
          (_, to, from) => `${to} = float_to_bf16${from};`,
        ),
    ),
    `const Entry entries[] = {`,
    ...table,
    '};',
  ].join('\n');
}

/** The prelude with its PTX conversions, a line each, replaced by C++ that rounds to even as they do. */
function withoutAssembly(prelude: string): string {
  const replaced: Readonly<Record<string, string>> = {
    half_to_float: `static float half_to_float(unsigned short h) { return (float)same_bits<_Float16>(h); }`,
    float_to_half: `static unsigned short float_to_half(float x) { return same_bits<unsigned short>((_Float16)x); }`,
    float_to_bf16: `static unsigned short float_to_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}`,
    e4m3_pair: `static unsigned e4m3_bits(float x) {
  if (x != x) return 0x7f;
  const float most = fabsf(x) < 448.0f ? fabsf(x) : 448.0f;
  const int exponent = most < 0x1p-6f ? -6 : ilogbf(most);
  return (signbit(x) ? 0x80 : 0) | (unsigned)(8 * (exponent + 6) + (int)nearbyintf(ldexpf(most, 3 - exponent)));
}
static unsigned short e4m3_pair(float a, float b) { return e4m3_bits(a) | e4m3_bits(b) << 8; }`,
  };
  return prelude
    .split('\n')
    .map((line) => {
      if (!line.includes('asm(')) return line;
      const [, name = ''] = /(\w+)\(/.exec(line.replace(/^.*?__forceinline__/, '')) ?? [];
      const body = replaced[name];
      if (body === undefined) throw new Error(`no stand-in for assembly: ${line}`);
      return body;
    })
    .join('\n');
}

function gcc(args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('g++', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    child.stderr.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`g++ ${args.join(' ')}\n${text.slice(0, 4000)}`)),
    );
  });
}
