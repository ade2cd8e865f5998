import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const reason =
  process.platform === 'linux' && process.arch === 'x64' ? undefined : 'is made of the packages of linux-x64';

describe.skipIf(reason !== undefined)(`the archive for GPU hosts${reason ? `, which ${reason}` : ''}`, () => {
  let folder: string;
  let media: string;
  let program: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'zoetrope-archive-'));
    const options = ['--compression', 'none', '--media', '--out', folder];
    await promisify(execFile)(process.execPath, [join(root, 'scripts/bundle.ts'), ...options]);
    const names = (await readdir(folder)).sort();
    expect(names).toEqual([
      expect.stringMatching(/^zoetrope-[\d.]+-linux-x64\.tar$/),
      expect.stringMatching(/^zoetrope-[\d.]+-media-linux-x64\.tar$/),
    ]);
    media = join(folder, names[1]!);
    unpack(join(folder, names[0]!));
    program = join(folder, names[0]!.replace('-linux-x64.tar', ''), 'zoetrope');
    await mkdir(join(folder, 'elsewhere'));
  }, 120_000);
  afterAll(() => rm(folder, { recursive: true }));

  function unpack(archive: string): void {
    expect(spawnSync('tar', ['-C', folder, '-xf', archive]).status).toBe(0);
  }

  /** Runs the program in another folder, where no other program can be found, Node least of all. */
  function run(...args: string[]) {
    const env = { PATH: '/nonexistent', HOME: folder };
    const cwd = join(folder, 'elsewhere');
    const { status, stdout, stderr } = spawnSync(program, args, { env, cwd, encoding: 'utf8' });
    return { status, stdout, stderr };
  }

  it('starts without Node, also through a link', async () => {
    const { status, stdout } = run('--help');
    expect({ status, stdout }).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('Usage: zoetrope COMMAND'),
    });
    const link = join(folder, 'elsewhere/link');
    await symlink(program, link);
    const linked = spawnSync(link, ['--version'], { env: { PATH: '/usr/bin:/bin' }, encoding: 'utf8' });
    expect(linked.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('says what it lacks', () => {
    const { stdout } = run('doctor');
    expect(stdout).toContain(`node        ${process.version}`);
    expect(stdout).toContain('cpu         no: device cpu: ONNX Runtime is not in this installation');
    expect(stdout).toContain('ffmpeg      not in this installation');
    const refused = run('dataset', 'worlds', '--count', '1', '--out', 'none');
    expect(refused.status).toBe(1);
    expect(refused.stderr.trim().split('\n').at(-1)).toMatch(/^zoetrope: .*000000.mp4: needs FFmpeg/);
    const recipe = join(root, 'recipes/toy/autoencoder.json');
    expect(run('train', 'autoencoder', '--recipe', recipe, '--out', 'run')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(
        'zoetrope: device cpu: ONNX Runtime is not in this installation; use --device nvidia\n',
      ),
    });
  });

  it('trains', { timeout: 120_000 }, async () => {
    const recipe = join(program, '../recipes/toy/autoencoder.json');
    const options = ['--recipe', recipe, '--out', 'run', '--device', 'reference', '--steps', '20'];
    const { stderr, status } = run('train', 'autoencoder', ...options);
    expect(stderr).toContain('"done":20,"total":20');
    expect(status).toBe(0);
    expect(await readFile(join(folder, 'elsewhere/run/report.html'), 'utf8')).toContain('data:image/');
  });

  it('writes and reads clips with the media archive unpacked over it', { timeout: 120_000 }, async () => {
    unpack(media);
    expect(run('dataset', 'worlds', '--count', '1', '--out', 'worlds')).toMatchObject({ status: 0 });
    expect(existsSync(join(folder, 'elsewhere/worlds/clips/000000.mp4'))).toBe(true);
    const { status, stdout } = run('dataset', 'check', 'worlds');
    expect(stdout).toContain('1 clip');
    expect(status).toBe(0);
  });
});
