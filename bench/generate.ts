/**
 * Time and memory of `zoetrope generate` as a user has it, start-up included.
 *
 *     npx node bench/generate.ts [MODEL=micro] [RUNS=3] [OPTIONS…]
 *
 * Memory is the highest resident memory of the program and of the process that writes the file together, asked ten times a
 * second (Linux).
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const [model = 'micro', runs = '3', ...options] = process.argv.slice(2);
const program = resolve(import.meta.dirname, '../bin/zoetrope.js');
const out = join(tmpdir(), `zoetrope-bench-${process.pid}.mp4`);
const prompt = 'a red ball bounces on green grass at sunset';

/** Resident bytes of a process and its children. */
function residentBytes(pid: number): number {
  try {
    const own = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
    const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean),
    );
    return own + children.reduce((sum, child) => sum + residentBytes(Number(child)), 0);
  } catch {
    return 0; // it has ended
  }
}

for (let run = 0; run < Number(runs); run++) {
  const args = [program, 'generate', prompt, '--out', out, '--model', model, '--seed', '1', ...options];
  const begin = performance.now();
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, residentBytes(child.pid ?? 0));
  }, 100);
  const code = await new Promise((done) => child.on('close', done));
  clearInterval(timer);
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  console.log(`exit code ${code}: ${seconds} s, ${(most / 2 ** 20).toFixed(0)} MiB`);
}
rmSync(out, { force: true });
