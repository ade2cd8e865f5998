import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { supervise } from '../../src/processes/supervise.ts';

const module = resolve(import.meta.dirname, '../../src/processes/supervise.ts');
let folder: string;
let programs = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-supervise-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs two processes of a program that does 3 steps and then what is given, of which `rank` tells them apart. */
async function run(then: string, patience?: number) {
  const file = join(folder, `${programs++}.ts`);
  await writeFile(
    file,
    `import { endWithSupervisor, report } from ${JSON.stringify(module)};
import { setTimeout as sleep } from 'node:timers/promises';
endWithSupervisor();
const rank = Number(process.env.RANK);
const step = async (step: number) => { await sleep(20); report({ kind: 'step', step }); };
for (let i = 1; i <= 3; i++) await step(i);
const stay = () => sleep(60_000);
const block = () => { for (;;); };
${then}
`,
  );
  const { signal } = new AbortController();
  return await supervise({ args: [file], count: 2, signal, ...(patience !== undefined && { patience }) });
}

it('ends all when one process hangs, and names it', async () => {
  const end = await run('if (rank === 1) block(); await sleep(1000); await step(4); await stay();', 2000);
  expect(end).toEqual({
    code: 1,
    problem:
      'process 1 of 2 does not answer, and no step was finished for 2 s; process 0 was heard of last, at step 4; see what ' +
      'holds it; all are stopped, and --resume goes on from the newest checkpoint',
  });
}, 30_000);

it('ends all when every process waits for ever', async () => {
  const { code, problem } = await run(
    'if (rank === 1) { await sleep(1000); await step(5); } await stay();',
    2000,
  );
  expect(code).toBe(1);
  expect(problem).toContain('process 1 was heard of last, at step 5');
  expect(problem).toContain('all 2 answer, so a GPU or the way between them hangs');
}, 30_000);

it('lets a process do something of unknown length, and steps be late', async () => {
  const work = "if (rank === 0) { report({ kind: 'rest' }); await sleep(2500); } await step(6);";
  expect(await run(`${work} report({ kind: 'rest' });`, 1000)).toEqual({ code: 0 });
  // Asked whether it is there, it goes on.
  expect(await run('await sleep(2500); await step(7);', 1000)).toEqual({ code: 0 });
}, 30_000);

it('waits for ever where no patience is given', async () => {
  expect(await run('await sleep(2000);')).toEqual({ code: 0 });
}, 30_000);
