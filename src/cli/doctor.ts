import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readdir, stat } from 'node:fs/promises';
import { arch, availableParallelism, cpus, freemem, platform, totalmem } from 'node:os';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type DeviceName, reportNvidiaLibraries, weightsFolder } from '../app.ts';
import { installedVersion } from '../installed.ts';
import { defineCommand } from './command.ts';
import type { ProbeAnswer } from './device-probe.ts';

/** `zoetrope doctor`. */
export const doctorCommand = defineCommand({
  description: `Say what this machine offers: Node.js, cores, memory, the devices that models can run on, and the models that
are there.

Exit code 0: a device and a model are there. 1: one of them is not.`,
  positionals: [],
  options: { json: { type: 'boolean', help: 'Print the report as JSON' } },
  example: 'zoetrope doctor',
  async run({ values, terminal }) {
    const report = await examine();
    terminal.stdout.write(values.json ? `${JSON.stringify(report)}\n` : textOf(report));
    const usable = report.devices.some(({ problem }) => problem === undefined);
    return usable && report.models.length > 0 ? 0 : 1;
  },
});

/** What one device can do here. */
interface DeviceReport extends ProbeAnswer {
  readonly device: DeviceName;
}

interface Report {
  readonly node: string;
  readonly platform: string;
  readonly cores: number;
  readonly processor: string;
  /** Bytes. */
  readonly memory: { readonly total: number; readonly free: number };
  /** Version of the package; null where it is not in this installation. */
  readonly onnxRuntime: string | null;
  /** Version of the package that holds FFmpeg; null where it is not in this installation. */
  readonly ffmpeg: string | null;
  readonly devices: readonly DeviceReport[];
  readonly nvidiaLibraries: Awaited<ReturnType<typeof reportNvidiaLibraries>>;
  /** Models that can be called by name. */
  readonly models: readonly { readonly name: string; readonly bytes: number }[];
}

async function examine(): Promise<Report> {
  return {
    node: process.version,
    platform: `${platform()} ${arch()}`,
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memory: { total: totalmem(), free: freemem() },
    onnxRuntime: installedVersion('onnxruntime-node') ?? null,
    ffmpeg: installedVersion('node-av') ?? null,
    devices: await Promise.all(probed.map(examineDevice)),
    nvidiaLibraries: await reportNvidiaLibraries(),
    models: await findModels(),
  };
}

const probed = ['cpu', 'webgpu', 'nvidia'] as const;

/** Tests a device in a process of its own: a driver that is unwell may print, hang or crash. */
async function examineDevice(device: DeviceName): Promise<DeviceReport> {
  const probe = new URL(`./device-probe${extname(import.meta.url)}`, import.meta.url);
  const child = fork(probe, [device], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'], timeout: 60_000 });
  const ended = once(child, 'close');
  const answers: ProbeAnswer[] = [];
  child.on('message', (answer) => answers.push(answer as ProbeAnswer));
  const [code, signal] = (await ended) as [number | null, string | null];
  return { device, ...(answers[0] ?? { problem: `its test ended with ${signal ?? `code ${code}`}` }) };
}

/** Folders of the package's weights that hold both files of a model. */
async function findModels(): Promise<Report['models']> {
  const folder = fileURLToPath(weightsFolder);
  const names = await readdir(folder).catch(() => []);
  const found = await Promise.all(
    names.map(async (name) => {
      const files = ['autoencoder.safetensors', 'transformer.safetensors'];
      const sizes = await Promise.all(
        files.map(async (file) => (await stat(join(folder, name, file)).catch(() => undefined))?.size),
      );
      return { name, bytes: sizes.reduce<number>((sum, size) => sum + (size ?? Number.NaN), 0) };
    }),
  );
  return found.filter(({ bytes }) => Number.isFinite(bytes));
}

/** A device, and what became of operators of our own there. */
function rowsOf({ device, executor, fallback, problem, operators }: DeviceReport): [string, string][] {
  const found =
    executor === undefined
      ? `no: ${problem}`
      : ['yes: ', executor, ...(fallback ? [' ', fallback] : [])].join('');
  if (operators === undefined) return [[device, found]];
  const { level, bfloat16 = false, problem: lacking } = operators;
  return [
    [device, found],
    [
      'operators',
      level === undefined
        ? `none of our own, which is slower: ${lacking}`
        : `our own, for ${level}${bfloat16 ? ', products in bf16 too' : ''}`,
    ],
  ];
}

function textOf(report: Report): string {
  const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GB`;
  const { memory, models } = report;
  const rows: [string, string][] = [
    ['node', `${report.node} on ${report.platform}`],
    ['processor', `${report.processor}, ${report.cores} cores`],
    ['memory', `${gigabytes(memory.total)}, ${gigabytes(memory.free)} free`],
    ['onnxruntime', report.onnxRuntime ?? 'not in this installation: device nvidia alone'],
    [
      'ffmpeg',
      report.ffmpeg === null ? 'not in this installation: no mp4 and webm' : `node-av ${report.ffmpeg}`,
    ],
    ...report.devices.flatMap(rowsOf),
    ...report.nvidiaLibraries.map(({ name, path, problem }): [string, string] => [
      name,
      path ?? `not found: ${problem?.split(';')[0]}`,
    ]),
    ...models.map(({ name, bytes }): [string, string] => [
      'model',
      `${name}, ${(bytes / 1e6).toFixed(1)} MB`,
    ]),
    ...(models.length === 0
      ? [['model', `none in ${fileURLToPath(weightsFolder)}`] as [string, string]]
      : []),
  ];
  return rows.map(([name, value]) => `${name.padEnd(12)}${value}\n`).join('');
}
