/**
 * `npm run bundle [-- options]`: an archive for GPU hosts without Node and without a network. Unpacked anywhere it holds an
 * executable `zoetrope`: a stripped Node, the compiled program, recipes, and the packages that training, generating
 * and measuring on `--device nvidia` load. ONNX Runtime, the device `cpu`, is not in it.
 *
 *   --out DIR           where archives go; default archives/
 *   --weights NAME,..   models of weights/ to put in; default none
 *   --media             makes a second archive, to be unpacked over the first: FFmpeg, which mp4 and webm need
 *   --compression NAME  xz (default), gzip, none
 *   --carry             instead makes .bundle/, which brings Node and koffi to a host that gets this working tree
 *                       (`scripts/gpu/setup.sh`)
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    out: { type: 'string', default: 'archives' },
    weights: { type: 'string', default: '' },
    media: { type: 'boolean', default: false },
    compression: { type: 'string', default: 'xz' },
    carry: { type: 'boolean', default: false },
  },
});

/** What `tar` is told and how the archive's name ends. Machine code packs better after the filter for x86. */
const compressions = {
  xz: { use: ['-I', 'xz -T2 --x86 --lzma2=preset=6'], ending: '.tar.xz' },
  gzip: { use: ['-I', 'gzip -6'], ending: '.tar.gz' },
  none: { use: [], ending: '.tar' },
} as const;

/** Most bytes of the archive without weights. */
const limit = 50 * 2 ** 20;

const root = resolve(import.meta.dirname, '..');
const modules = join(root, 'node_modules');

/** Packages by archive, and the files of each that are loaded at run time where the others are many. */
const packages = {
  program: {
    koffi: [
      'package.json',
      'LICENSE.txt',
      'index.js',
      'index.cjs',
      'indirect.js',
      'indirect.cjs',
      'lib',
      'src',
    ],
    '@koromix/koffi-linux-x64': [],
    sharp: [],
    '@img/sharp-linux-x64': [],
    '@img/sharp-libvips-linux-x64': [],
    '@img/colour': [],
    'detect-libc': [],
    semver: [],
    gifenc: ['package.json', 'LICENSE.md', 'dist'],
  },
  media: {
    'node-av': ['package.json', 'LICENSE.md', 'dist'],
    '@seydx/node-av-linux-x64': [],
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;

if (process.platform !== 'linux' || process.arch !== 'x64')
  throw new Error(
    `bundle: the packages installed here are those of ${process.platform}-${process.arch}; run it on linux-x64`,
  );
if (options.carry) carry();
else archives();

function archives(): void {
  const compression = Object.hasOwn(compressions, options.compression)
    ? compressions[options.compression as keyof typeof compressions]
    : undefined;
  if (compression === undefined)
    throw new Error(
      `bundle: --compression ${options.compression}: use one of ${Object.keys(compressions).join()}`,
    );
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const out = resolve(options.out);
  mkdirSync(out, { recursive: true });
  const work = mkdtempSync(join(tmpdir(), 'zoetrope-bundle-'));
  try {
    const name = `zoetrope-${version}`;
    stageProgram(join(work, 'program', name));
    const file = join(out, `${name}-linux-x64${compression.ending}`);
    pack(join(work, 'program'), name, file, compression.use);
    const isWhole = options.weights === '' && options.compression === 'xz';
    if (isWhole && statSync(file).size > limit)
      throw new Error(`bundle: ${file} is larger than ${limit / 2 ** 20} MiB; put less into it`);
    if (!options.media) return;
    copyPackages(packages.media, join(work, 'media', name));
    pack(
      join(work, 'media'),
      name,
      join(out, `${name}-media-linux-x64${compression.ending}`),
      compression.use,
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The program as it lies on the host. */
function stageProgram(folder: string): void {
  mkdirSync(join(folder, 'bin'), { recursive: true });
  const program = join(folder, 'zoetrope');
  cpSync(join(root, 'scripts/bundle-launcher.sh'), program);
  chmodSync(program, 0o755);
  strippedNode(join(folder, 'bin/node'));
  for (const file of ['bin/zoetrope.js', 'package.json', 'LICENSE', 'README.md', 'CHANGELOG.md', 'recipes'])
    cpSync(join(root, file), join(folder, file), { recursive: true });
  const build = ['-p', join(root, 'tsconfig.build.json'), '--outDir', join(folder, 'dist')];
  execFileSync(join(modules, '.bin/tsc'), [...build, '--declaration', 'false', '--sourceMap', 'false'], {
    stdio: 'inherit',
  });
  copyPackages(packages.program, folder);
  for (const name of options.weights.split(',').filter((part) => part !== '')) {
    const weights = join(root, 'weights', name);
    if (!existsSync(weights)) throw new Error(`bundle: --weights ${name}: there is no ${weights}`);
    cpSync(weights, join(folder, 'weights', name), { recursive: true });
  }
}

function copyPackages(chosen: Readonly<Record<string, readonly string[]>>, folder: string): void {
  for (const [name, files] of Object.entries(chosen)) {
    const target = join(folder, 'node_modules', name);
    const from = join(modules, name);
    if (files.length === 0) cpSync(from, target, { recursive: true });
    for (const file of files) cpSync(join(from, file), join(target, file), { recursive: true });
  }
}

/** Node without what only debuggers read, where binutils are installed. */
function strippedNode(target: string): void {
  cpSync(join(modules, 'node/bin/node'), target);
  if (spawnSync('strip', [target]).error !== undefined)
    console.log('bundle: no strip here: Node stays as it is');
}

/** The same files give the same archive. */
function pack(folder: string, name: string, file: string, compression: readonly string[]): void {
  const order = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0'];
  execFileSync('tar', ['-C', folder, ...order, ...compression, '-cf', file, name], { stdio: 'inherit' });
  console.log(`${file}: ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB`);
}

function carry(): void {
  const bundle = join(root, '.bundle');
  mkdirSync(bundle, { recursive: true });
  const node = join(bundle, 'node');
  if (!existsSync(`${node}.xz`)) {
    strippedNode(node);
    execFileSync('xz', ['-6', '-T2', '-f', node], { stdio: 'inherit' });
  }
  rmSync(join(bundle, 'node_modules'), { recursive: true, force: true });
  const { koffi, '@koromix/koffi-linux-x64': native } = packages.program;
  copyPackages({ koffi, '@koromix/koffi-linux-x64': native }, bundle);
  console.log(
    `.bundle: Node ${(statSync(`${node}.xz`).size / 2 ** 20).toFixed(1)} MiB, koffi; carry it with the tree`,
  );
}
