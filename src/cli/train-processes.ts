import { writeSync } from 'node:fs';
import { Writable } from 'node:stream';
import { openExecutor } from '../app.ts';
import type { Executor } from '../executors/executor.ts';
import type { ProcessGroup } from '../executors/process-group.ts';
import { type JoinedProcesses, joinProcesses, lostMessage } from '../processes/join.ts';
import { endWithSupervisor, isSupervised, report, supervise } from '../processes/supervise.ts';
import { formatPatience, Pulse, stalled } from '../processes/watch.ts';
import { type Terminal, UsageError } from './command.ts';
import type { TrainSettings } from './train-options.ts';

/** How long a supervisor may take to end its processes. */
const supervisorPatience = 10_000;

/**
 * With `--gpus`, runs the same command once for each GPU, and resolves to the exit code of all; undefined in a process
 * that is one of several already, or that is to train alone.
 */
export async function superviseGpus(
  settings: TrainSettings,
  terminal: Terminal,
): Promise<number | undefined> {
  const { gpus, device, launch, patience, planOnly } = settings;
  if (gpus === 1 || planOnly || (launch !== undefined && isSupervised())) return undefined;
  if (launch !== undefined)
    throw new UsageError(
      'zoetrope: --gpus starts the processes of one machine, but this is one of several already; leave --gpus out',
    );
  if (device !== 'nvidia' && device !== 'reference')
    throw new UsageError(`zoetrope: --gpus ${gpus} needs --device nvidia, got ${device}`);
  const args = [...process.execArgv, ...process.argv.slice(1)];
  const { code, problem } = await supervise({ args, count: gpus, signal: terminal.signal, patience });
  if (problem !== undefined) terminal.stderr.write(`zoetrope: ${problem}\n`);
  return code;
}

/** Joins the other processes of a training, if there are any. When one is lost, this process ends. */
export async function joinOthers({ launch, planOnly }: TrainSettings): Promise<JoinedProcesses | undefined> {
  if (launch === undefined || planOnly) return undefined;
  endWithSupervisor();
  return await joinProcesses(launch, { onLost: endLost });
}

/** Opens a training's executor: this process's GPU, with the way to the others. */
export async function openTrainingExecutor(
  { device, deviceOptions, launch }: TrainSettings,
  processes: ProcessGroup | undefined,
): Promise<Executor> {
  return await openExecutor(device, { ...deviceOptions, gpu: launch?.localRank ?? 0, processes });
}

/** Who is told how a training goes on, and ends it when it hangs. */
export interface Watcher {
  /** A step was finished, or training begins after one: the next is awaited. */
  step(step: number): void;
  /** Something of unknown length is done, or all is. @param isOwn whether by this process, or by one that it waits for. */
  rest(isOwn: boolean): void;
}

/** Milliseconds between what is said of steps: they may be short. */
const sayEvery = 200;

/** The supervisor of this process as its watcher; where there is none, the process watches itself. */
export function watcherOf(processes: ProcessGroup | undefined, patience: number): Watcher {
  if (processes === undefined) return { step: () => undefined, rest: () => undefined };
  if (!isSupervised()) return watchSelf(processes, patience);
  let said = Number.NEGATIVE_INFINITY;
  return {
    step: (step) => {
      const now = performance.now();
      if (now - said < sayEvery) return;
      said = now;
      report({ kind: 'step', step });
    },
    rest: (isOwn) => {
      said = Number.NEGATIVE_INFINITY;
      // The supervisor hears it of the other one.
      if (isOwn) report({ kind: 'rest' });
    },
  };
}

/** When no step is finished this process ends, which ends the others. */
function watchSelf({ rank, world }: ProcessGroup, patience: number): Watcher {
  const pulse = new Pulse();
  void stalled([pulse], patience, new AbortController().signal).then(() => {
    const what = `no step was finished for ${formatPatience(patience)} after step ${pulse.step}`;
    const rest =
      'see which process or GPU hangs; the same command with --resume goes on from the newest checkpoint';
    writeSync(2, `zoetrope: process ${rank} of ${world}: ${what}, so it stops; ${rest}\n`);
    process.kill(process.pid, 'SIGKILL');
  });
  return { step: (step) => pulse.beat(step), rest: () => pulse.rest() };
}

/** Whether this process writes and speaks for all. */
export function isFirst(processes: ProcessGroup | undefined): boolean {
  return processes === undefined || processes.rank === 0;
}

/** Does what one process has to do for all, which wait for it. @returns what it resolved to, in all processes. */
export async function firstDoes(
  processes: ProcessGroup | undefined,
  work: () => Promise<boolean>,
): Promise<boolean> {
  if (processes === undefined) return await work();
  const own = processes.rank === 0 && (await work());
  const [first] = await processes.exchange(Uint8Array.of(own ? 1 : 0));
  return first?.[0] === 1;
}

/** A terminal on which only the first process speaks. */
export function terminalOf(terminal: Terminal, processes: ProcessGroup | undefined): Terminal {
  if (isFirst(processes)) return terminal;
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  return { ...terminal, stdout: silent, stderr: silent };
}

/** What waits for a GPU's collective now waits for ever, so nothing can end in good order. */
function endLost(rank: number): void {
  const end = () => process.kill(process.pid, 'SIGKILL');
  if (isSupervised()) {
    setTimeout(end, supervisorPatience);
    return;
  }
  writeSync(2, `zoetrope: ${lostMessage(rank)}\n`);
  end();
}
