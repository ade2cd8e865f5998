import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeModel } from '../../src/storage/model-file.ts';
import { readVideo } from '../../src/video/read.ts';
import { writeVideo } from '../../src/video/write.ts';
import { pattern, tinyWeights, writeTinyModel } from '../pipeline/tiny-model.ts';
import { runCommand as run } from './run-command.ts';

const root = resolve(import.meta.dirname, '../..');
/** Whether the package ships operators of our own for this platform. */
const isShipped = process.platform === 'linux' && process.arch === 'x64';
let folder: string;
let model: string;
const at = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-make-'));
  model = at('model');
  await mkdir(model);
  await writeTinyModel(model);
  await writeVideo(pattern(9), at('clip.mp4'));
  await writeVideo(pattern(1), at('image.png'));
});
afterAll(() => rm(folder, { recursive: true }));

const tiny = () => ['--model', model, '--device', 'cpu', '--steps', '2', '--seed', '7'];
const small = ['--size', '16x16', '--frames', '5'];
const visible = async () => (await readdir(folder)).sort();

describe('zoetrope generate', () => {
  it.each(['mp4', 'webm'])('writes .%s, the same video for the same seed', async (ending) => {
    const [first, second] = [at(`first.${ending}`), at(`second.${ending}`)];
    const { code, stdout } = await run('generate', 'a ball', '--out', first, ...small, ...tiny());
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Wrote .*first\.\w+: 5 frames, seed 7, in \d+ s\n$/);
    // Overwritten: once with another seed, then with the same.
    await run('generate', 'a ball', '-o', second, ...small, ...tiny(), '--seed', '8');
    const video = await readVideo(first);
    expect((await readVideo(second)).data).not.toEqual(video.data);
    await run('generate', 'a ball', '-o', second, ...small, ...tiny());
    // Not the files: WebM numbers its tracks at random.
    expect((await readVideo(second)).data).toEqual(video.data);
    expect([video.width, video.height, video.frames]).toEqual([16, 16, 5]);
  });

  it('makes a still for the ending of one, and tells a drawn seed that makes it again', async () => {
    const options = ['--size', '16x16', '--model', model, '--steps', '2'];
    const { stdout } = await run('generate', 'a ball', '--out', at('still.png'), ...options);
    const seed = stdout.match(/1 frame, seed (\d+)/)?.[1];
    await run('generate', 'a ball', '--out', at('again.png'), ...options, '--seed', seed!);
    expect((await readVideo(at('again.png'))).data).toEqual((await readVideo(at('still.png'))).data);
  });

  it('takes an image of any size, a video, a preview', async () => {
    await writeVideo(pattern(1, 40, 24), at('wide.png'));
    const image = await run(
      'generate',
      'x',
      '--image',
      at('wide.png'),
      '-o',
      at('a.gif'),
      ...small,
      ...tiny(),
    );
    expect(image.code).toBe(0);
    const video = await run('generate', 'x', '--video', at('clip.mp4'), '-o', at('b.gif'), ...tiny());
    expect(video.stdout).toMatch(/9 frames/);
    const previewed = ['--preview-out', at('small.gif'), '-o', at('c.gif'), ...small, ...tiny()];
    expect((await run('generate', 'x', ...previewed)).code).toBe(0);
    expect((await readVideo(at('small.gif'))).width).toBe(8);
  });

  it('expands a prompt when told to, and says to what', async () => {
    const options = ['--expand', '-o', at('expanded.gif'), ...small, ...tiny()];
    const { code, stderr } = await run('generate', 'a red ball bounces', ...options);
    expect(code).toBe(0);
    const long = stderr.match(/Expanded: ([^"]+)/)?.[1];
    expect(long).toMatch(/ball.*\. The camera|camera/);
    await run('generate', long!, '-o', at('same.gif'), ...small, ...tiny());
    expect((await readFile(at('same.gif'))).equals(await readFile(at('expanded.gif')))).toBe(true);
    const other = await run('generate', 'a cat', '--expand', '--plan', ...tiny());
    expect(other.stderr).toMatch(/used as it is/);
  });

  it('says what it would do, and writes nothing', async () => {
    const before = await visible();
    for (const flag of ['--plan', '--dry-run']) {
      const options = [flag, '--out', at('never.mp4'), ...small, ...tiny(), '--guidance-interval', '0.2,0.8'];
      const { code, stdout } = await run('generate', 'a ball', ...options);
      expect(code).toBe(0);
      expect(stdout).toMatch(
        /^video +16x16, 5 frames at 12 a second \(0\.4 s\)\ntokens +8 video \(2x2x2\), 2 text\n/,
      );
      expect(stdout).toMatch(/seed +7\nmemory +about \d+ MB\ntime +about \d+ s on onnx cpu\n$/);
    }
    expect(await visible()).toEqual(before);
    expect((await run('generate', 'a ball', '--plan', ...tiny())).code).toBe(0);
  });

  const wrong: [string[], RegExp][] = [
    [[], /^zoetrope generate: --out FILE is missing/],
    [['--out', 'ball.avi'], /ball\.avi: no format has this ending; use one of \.mp4/],
    [['--out', 'OUT.png', '--frames', '5'], /OUT\.png: holds one frame, not 5; use --frames 1/],
    [['--size', '20x16'], /--size 20x16 does not fit; .* such as 24x16/],
    [['--size', '16'], /--size must be two numbers such as 1x2, got '16'/],
    [['--size', 'axb'], /--size must be two numbers/],
    [['--frames', '0'], /--frames must be a whole number from 1/],
    [['--frames', '2.5'], /--frames must be a whole number/],
    [['--seconds', '0'], /--seconds 0; use more than 0/],
    [['--seconds', '1', '--frames', '5'], /--seconds 1 and 5 frames; give one of the two/],
    [['--fps', '0'], /--fps must be a number from 0.1/],
    [['--seed', '-1'], /--seed must be a whole number from 0/],
    [['--seed', 'x'], /--seed must be a whole number/],
    [['--steps', '0'], /--steps must be a whole number from 1 to 1000/],
    [['--guidance', 'much'], /--guidance must be a number/],
    [['--guidance-interval', '0.8,0.2'], /--guidance-interval 0.8 to 0.2/],
    [['--guidance-interval', '0.8'], /--guidance-interval must be two numbers/],
    [['--sampler', 'rk4'], /--sampler must be one of euler, heun, multistep, got 'rk4'\n$/],
    [['--device', 'gpu'], /--device must be one of auto, cpu/],
    [['--precision', 'bf8'], /--precision must be one of fp32, tf32, bf16, fp8, got 'bf8'/],
    [['--precision', 'fp8'], /--precision fp8 is of --device nvidia, not of cpu; leave it out/],
    [['--threads', '0'], /--threads must be a whole number from 1/],
    [['--strength', '0.5'], /--strength says how far a video is changed; give the video/],
    [['--video', 'CLIP', '--strength', '2'], /--strength must be a number from 0 to 1/],
    [['--video', 'CLIP', '--image', 'IMAGE'], /--image and --video cannot be given together/],
    [['--image', 'IMAGE', '--frames', '1'], /--image would be the only frame/],
    [['--size', '8x8', '--preview'], /--preview of 8x8 pixels cannot be any smaller/],
    [['--negative', 'x'.repeat(1281)], /--negative has 1281 bytes/],
  ];
  it.each(wrong)('refuses %j in one line with exit code 2, and writes nothing', async (argv, message) => {
    const names: Record<string, string> = {
      CLIP: at('clip.mp4'),
      IMAGE: at('image.png'),
      'OUT.png': at('OUT.png'),
    };
    const given = argv.map((one) => names[one] ?? one);
    const out = argv.length === 0 || argv.includes('--out') ? [] : ['--out', at('never.mp4')];
    const before = await visible();
    const { code, stdout, stderr } = await run('generate', 'a ball', ...tiny(), ...out, ...given);
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n').length).toBe(1);
    expect([code, stdout]).toEqual([2, '']);
    expect(await visible()).toEqual(before);
  });

  it('refuses values before it reads a video', async () => {
    // Its head can be read, its frames cannot.
    await writeVideo(pattern(60), at('whole.mp4'));
    const whole = await readFile(at('whole.mp4'));
    await writeFile(at('torn.mp4'), whole.subarray(0, Math.floor(0.6 * whole.length)));
    const given = ['--video', at('torn.mp4'), '--out', at('never.mp4'), ...tiny()];
    expect((await run('generate', 'x', ...given)).stderr).toMatch(/torn\.mp4: only \d+ of 60 frames/);
    const wrong: [string[], RegExp][] = [
      [['--size', '20x16'], /^zoetrope: --size 20x16 does not fit/],
      [['--seconds', '1', '--frames', '5'], /^zoetrope: --seconds 1 and 5 frames/],
      [['--guidance-interval', '0.8,0.2'], /^zoetrope: --guidance-interval 0.8 to 0.2/],
      [['--size', '8x8', '--preview'], /^zoetrope: --preview of 8x8 pixels/],
      [['--preview-out', at('small.png'), '--frames', '5'], /small\.png: holds one frame, not 5/],
    ];
    for (const [argv, message] of wrong) {
      const { code, stderr } = await run('generate', 'x', ...given, ...argv);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
  });

  it('refuses places and models in one line with exit code 1', async () => {
    const nowhere = await run('generate', 'x', '--out', at('no/where.mp4'), ...tiny());
    expect(nowhere).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/there is no folder/),
    });
    const nothing = await run('generate', 'x', '--out', at('x.mp4'), '--model', at('nothing'));
    expect(nothing.code).toBe(1);
    expect(nothing.stderr).toMatch(
      /^zoetrope: model .*nothing: there is no .*autoencoder\.safetensors; train one .*\n$/,
    );
    const image = await run('generate', 'x', '--out', at('x.mp4'), '--image', at('none.png'), ...tiny());
    expect(image).toMatchObject({ code: 1, stderr: expect.stringMatching(/none\.png: no such file/) });
  });

  it('refuses networks that do not belong together', async () => {
    const mixed = at('mixed');
    await mkdir(mixed);
    await writeTinyModel(mixed);
    const path = join(mixed, 'autoencoder.safetensors');
    const { config, parameters } = tinyWeights.autoencoder;
    await writeModel(path, { kind: 'autoencoder', config, parameters, dtype: 'f16' });
    const { code, stderr } = await run('generate', 'x', '--out', at('x.mp4'), '--model', mixed);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/of another autoencoder .* of one training together\n$/),
    ]);
  });
});

describe('edits', () => {
  it('extend, join and loop files', async () => {
    const clip = at('clip.mp4');
    const counts = async (...argv: string[]) => {
      const { code, stdout, stderr } = await run(...argv, ...tiny());
      expect(stderr.split('\n').filter((line) => line !== '' && !line.startsWith('{'))).toEqual([]);
      return [code, stdout.match(/(\d+) frames/)?.[1]];
    };
    expect(await counts('extend', clip, 'a ball', '--frames', '6', '-o', at('longer.mp4'))).toEqual([
      0,
      '15',
    ]);
    expect(await counts('extend', clip, '--backward', '--frames', '6', '-o', at('e.gif'))).toEqual([0, '15']);
    expect(await counts('join', clip, at('longer.mp4'), '-o', at('j.webm'))).toEqual([0, '36']);
    expect(await counts('loop', clip, 'x', '--seconds', '0.5', '-o', at('l.webp'))).toEqual([0, '15']);
  });

  it('say what they do to a file of another size and rate', async () => {
    await writeVideo(pattern(20, 320, 180, 24), at('large.mp4'));
    const { code, stdout, stderr } = await run('extend', at('large.mp4'), '--plan', ...tiny());
    expect(stderr).toMatch(/320x180 pixels are read as 104x56/);
    expect(stderr).toMatch(/24 frames a second are read as 12/);
    expect(stdout).toMatch(/^video +104x56, 26 frames at 12/);
    expect(stdout).toMatch(/\nsampling +2 steps of multistep, 1 corrected, guidance 4: 6 evaluations\n/);
    expect(code).toBe(0);
  });

  it('refuse values by the names of options with exit code 2, files with 1', async () => {
    await writeVideo(pattern(3), at('short.mp4'));
    const out = ['--out', at('never.mp4'), ...tiny()];
    const { code, stderr } = await run('extend', at('short.mp4'), '--backward', ...out);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^zoetrope: \S*short\.mp4: has 3 frames; give at least \d\n$/),
    ]);
    const clip = at('clip.mp4');
    const wrong: [string[], RegExp][] = [
      [['loop', clip, '--size', '9x9'], /^zoetrope: --size 9x9 does not fit; /],
      [['extend', clip, '--guidance-interval', '0.8,0.2'], /^zoetrope: --guidance-interval 0.8 to 0.2; /],
      [['extend', clip, 'x'.repeat(1281)], /^zoetrope: the prompt has 1281 bytes/],
      [['join', clip, clip, '--seconds', '1', '--frames', '5'], /^zoetrope: --seconds 1 and 5 frames; /],
    ];
    for (const [argv, message] of wrong) {
      const refused = await run(...argv, ...out);
      expect([refused.code, refused.stdout]).toEqual([2, '']);
      expect(refused.stderr).toMatch(message);
    }
  });
});

describe('zoetrope doctor', () => {
  it('reports as text and as JSON', async () => {
    const { stdout } = await run('doctor', '--json');
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ node: process.version, onnxRuntime: '1.30.0' });
    expect(report.devices.map(({ device }: { device: string }) => device)).toEqual([
      'cpu',
      'webgpu',
      'nvidia',
    ]);
    const { operators, ...cpu } = report.devices[0];
    expect(cpu).toEqual({ device: 'cpu', executor: 'onnx cpu' });
    expect(Object.keys(operators)).toEqual(isShipped ? ['level', 'bfloat16'] : ['problem']);
    for (const { executor, problem } of report.devices)
      expect((executor === undefined) === (problem !== undefined)).toBe(true);
    const text = (await run('doctor')).stdout;
    expect(text).toMatch(/^node +v/);
    expect(text).toMatch(
      /\ncpu +yes: onnx cpu\noperators {3}(our own, for x86-64-v[234](, products in bf16 too)?|none of our own, [^\n]+)\n/,
    );
  });

  it.skipIf(!isShipped)('says why operators of our own are not used', async () => {
    process.env.ZOETROPE_CPU_LEVEL = '1';
    try {
      expect((await run('doctor')).stdout).toMatch(
        /\noperators {3}none of our own, which is slower: this processor lacks some of x86-64-v2, [^\n]*SSE4\.2[^\n]*\n/,
      );
    } finally {
      delete process.env.ZOETROPE_CPU_LEVEL;
    }
  });
});

describe('a machine whose ONNX Runtime cannot be called through its library', () => {
  it('is told so by doctor and --plan, with the reason', async () => {
    const hook = at('no-koffi.mjs');
    await writeFile(
      hook,
      `import { registerHooks } from 'node:module';
       registerHooks({
         resolve(name, context, next) {
           if (name === 'koffi') throw new Error('no koffi here');
           return next(name, context);
         },
       });`,
    );
    const zoetrope = async (...argv: string[]) =>
      (
        await promisify(execFile)(process.execPath, [
          '--import',
          hook,
          join(root, 'bin/zoetrope.js'),
          ...argv,
        ])
      ).stdout;
    const fallback = 'by its Node package, which is slower: the library cannot be called (no koffi here)';
    const { devices } = JSON.parse(await zoetrope('doctor', '--json'));
    const problem = "ONNX Runtime's JavaScript package takes none";
    expect(devices[0]).toEqual({ device: 'cpu', executor: 'onnx cpu', fallback, operators: { problem } });
    expect(await zoetrope('doctor')).toContain(
      `cpu         yes: onnx cpu ${fallback}\noperators   none of our own, which is slower: ${problem}\n`,
    );
    expect(await zoetrope('generate', 'a ball', '--plan', ...small, ...tiny())).toContain(
      ` on onnx cpu ${fallback}\n`,
    );
  });
});

describe('a process that makes a video', () => {
  /** Starts one that takes some seconds; resolves with what it had written when it ended, and its exit code. */
  async function interrupted(out: string, signal: NodeJS.Signals, after: string): Promise<number | null> {
    const args = ['generate', 'a ball', '--out', out, '--model', model, '--device', 'cpu', '--seed', '7'];
    const child = spawn(
      process.execPath,
      [join(root, 'bin/zoetrope.js'), ...args, '--size', '32x32', '--frames', '241', '--steps', '40'],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let said = '';
    let isSent = false;
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk;
      // Once: a second Ctrl-C, in answer to what the first one made it say, would end it at once.
      if (isSent || !said.includes(after)) return;
      isSent = true;
      child.kill(signal);
    });
    child.stdout.resume();
    return await new Promise((done) => child.on('close', (code) => done(code)));
  }

  it.each(['"label":"sampling"', '"label":"decoding"'])(
    'killed at %s leaves nothing under the final name, and what stood there as it was',
    async (moment) => {
      const out = at('killed.mp4');
      await writeFile(out, 'what was there');
      expect(await interrupted(out, 'SIGKILL', moment)).toBe(null);
      expect(await readFile(out, 'utf8')).toBe('what was there');
    },
  );

  it('interrupted ends with 130 and leaves nothing at all', async () => {
    const out = at('interrupted.mp4');
    const before = (await visible()).filter((name) => !name.startsWith('.'));
    const leftovers = (await visible()).length;
    expect(await interrupted(out, 'SIGINT', '"label":"sampling"')).toBe(130);
    expect((await visible()).filter((name) => !name.startsWith('.'))).toEqual(before);
    expect((await visible()).length).toBe(leftovers);
  });
});
