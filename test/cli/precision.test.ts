import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { loadModel, openDevice, reportNvidiaLibraries } from '../../src/app.ts';
import { libraryPathVariable } from '../../src/executors/nvidia/bindings/discovery.ts';
import { RequestError } from '../../src/pipeline/request.ts';
import { writeTinyModel } from '../pipeline/tiny-model.ts';
import { runCommand as run } from './run-command.ts';

const hasGpu = (await reportNvidiaLibraries()).some(({ name, path }) => name === 'driver' && path);
const hasCompiler = spawnSync('gcc', ['--version']).status === 0;
const isShipped = process.platform === 'linux' && process.arch === 'x64';

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'zoetrope-precision-'));
  await writeTinyModel(folder);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Asks for a plan in a precision, on what the machine has. */
const plan = (precision: string) =>
  run('generate', 'a ball', '--plan', '--model', folder, '--size', '16x16', '--precision', precision);

/** That a precision cannot be had, for this reason. */
const refused = (precision: string, reason: string) => ({
  code: 2,
  stdout: '',
  stderr: `zoetrope: --precision ${precision} cannot be had here (device nvidia: ${reason}); leave it out, or see zoetrope doctor\n`,
});

describe.skipIf(hasGpu)('on a machine without an NVIDIA GPU, --device auto', () => {
  const reason = 'no driver library of NVIDIA could be loaded';

  it.each(['tf32', 'fp8'])('refuses --precision %s in one line', async (precision) => {
    expect(await plan(precision)).toEqual(refused(precision, reason));
  });

  it('refuses it of an evaluation too', async () => {
    expect(await run('evaluate', '--model', folder, '--precision', 'fp8')).toEqual(refused('fp8', reason));
  });

  it('takes the CPU for fp32, which it computes in, and where no precision is named', async () => {
    const { code, stderr } = await plan('fp32');
    expect([code, stderr]).toEqual([0, '']);
    await using executor = await openDevice();
    expect(executor.name).toBe('onnx cpu');
  });

  it('tells the library by a RequestError', async () => {
    const loading = loadModel(folder, { precision: 'fp8' });
    await expect(loading).rejects.toThrow(RequestError);
    await expect(loading).rejects.toThrow(/^precision: fp8 cannot be had here \(device nvidia: no driver /);
  });
});

describe.skipIf(!isShipped)('--device cpu --precision bf16', () => {
  afterEach(() => {
    delete process.env.ZOETROPE_CPU_LEVEL;
  });

  it.each(hasGpu ? ['cpu'] : ['cpu', 'auto'])(
    'is refused in one line where the processor multiplies no bfloat16, --device %s',
    async (device) => {
      process.env.ZOETROPE_CPU_LEVEL = '3';
      const given = [
        '--plan',
        '--model',
        folder,
        '--size',
        '16x16',
        '--device',
        device,
        '--precision',
        'bf16',
      ];
      expect(await run('generate', 'a ball', ...given)).toEqual({
        code: 1,
        stdout: '',
        stderr:
          'zoetrope: device cpu: precision bf16 needs AVX512_BF16, which this processor lacks; leave it out\n',
      });
    },
  );
});

/** A machine's libraries in name, and a driver that knows of this many GPUs of compute capability 8.0. */
function makeLibraries(gpus: number): string {
  const made = join(folder, `gpus${gpus}`);
  mkdirSync(made);
  const bindings = resolve(import.meta.dirname, '../../src/executors/nvidia/bindings');
  const source = readdirSync(bindings)
    .map((name) => readFileSync(join(bindings, name), 'utf8'))
    .join('\n');
  const own: Readonly<Record<string, string>> = {
    cuDeviceGetCount: `(int *count) { *count = ${gpus}; return 0; }`,
    cuDeviceGetName:
      '(char *name, int size, int gpu) { (void)size, (void)gpu, strcpy(name, "Some GPU"); return 0; }',
    cuDeviceGetAttribute:
      '(int *value, int number, int gpu) { (void)gpu, *value = number == 75 ? 8 : 0; return 0; }',
  };
  const names = [...source.matchAll(/^ {2}(cu[A-Z]\w+): \[/gm)].map(([, name = '']) => name);
  const functions = names.map((name) => `int ${name}${own[name] ?? '(void) { return 0; }'}`);
  const files = { 'libcuda.so.1': ['#include <string.h>', ...functions].join('\n') };
  const others = ['libnvrtc.so.13', 'libcublasLt.so.13', 'libcudnn.so.9'].map((name) => [name, 'int none;']);
  for (const [name, text] of [...Object.entries(files), ...others] as [string, string][]) {
    writeFileSync(join(made, 'source.c'), text);
    const { stderr } = spawnSync(
      'gcc',
      ['-shared', '-fPIC', '-o', join(made, name), join(made, 'source.c')],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
  }
  return made;
}

describe.skipIf(hasGpu || !hasCompiler)('with a driver, --device auto', () => {
  const before = process.env[libraryPathVariable];
  afterEach(() => {
    if (before === undefined) delete process.env[libraryPathVariable];
    else process.env[libraryPathVariable] = before;
  });

  it('says so when there is no GPU', async () => {
    process.env[libraryPathVariable] = makeLibraries(0);
    const reason = 'there is no GPU 0; this process sees 0, counted from 0';
    expect(await plan('fp8')).toEqual(refused('fp8', reason));
  });

  it('says so when the GPU multiplies no 8-bit floats', async () => {
    process.env[libraryPathVariable] = makeLibraries(1);
    const reason = 'precision fp8: Some GPU (sm_80) multiplies no 8-bit floats; use bf16';
    expect(await plan('fp8')).toEqual(refused('fp8', reason));
    const { stderr } = await run(
      'generate',
      'a ball',
      '--plan',
      '--model',
      folder,
      '--device',
      'nvidia',
      '--precision',
      'fp8',
    );
    expect(stderr).toBe(`zoetrope: device nvidia: ${reason}\n`);
  });
});
