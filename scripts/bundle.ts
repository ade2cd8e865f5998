/**
 * `npm run bundle`: gathers in `.bundle/` what a machine without a network needs, besides this working tree, to run us:
 * Node itself, stripped and compressed, and koffi for linux-x64. `scripts/gpu/setup.sh` unpacks it there.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const bundle = join(root, '.bundle');
const modules = join(root, 'node_modules');

/** The files of koffi that are loaded at run time. */
const koffiFiles = ['package.json', 'index.js', 'index.cjs', 'indirect.js', 'indirect.cjs', 'lib', 'src'];

mkdirSync(bundle, { recursive: true });
const node = join(bundle, 'node');
if (!existsSync(`${node}.xz`)) {
  cpSync(join(modules, 'node/bin/node'), node);
  execFileSync('strip', [node]);
  execFileSync('xz', ['-6', '-T2', '-f', node], { stdio: 'inherit' });
}
const packed = join(bundle, 'node_modules');
rmSync(packed, { recursive: true, force: true });
for (const file of koffiFiles)
  cpSync(join(modules, 'koffi', file), join(packed, 'koffi', file), { recursive: true });
cpSync(join(modules, '@koromix/koffi-linux-x64'), join(packed, '@koromix/koffi-linux-x64'), {
  recursive: true,
});
console.log(
  `.bundle: Node ${(statSync(`${node}.xz`).size / 2 ** 20).toFixed(1)} MiB, koffi; carry it with the tree`,
);
