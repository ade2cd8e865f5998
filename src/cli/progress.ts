import type { Terminal } from './command.ts';

/** What a progress reporter is told at the start. */
export type ProgressOptions = {
  /** What is being done, such as `checking`. */
  readonly label: string;
  /** How many units there are; `undefined` when that is not known. */
  readonly total: number | undefined;
  /** What is counted, in the plural, such as `clips`. */
  readonly unit: string;
  /** Milliseconds since any fixed moment; tests pass their own clock. Default `performance.now`. */
  readonly now?: () => number;
};

/**
 * Reports how far a long job is: a bar on a terminal, JSON lines elsewhere; on stderr, so results stay clean. Bind it with
 * `using`: without `finish`, as when the job fails, the bar stays as it is and its line is ended for the error to follow.
 */
export type Progress = Disposable & {
  /** `done` units of the total are finished. Cheap: draws at most ten times a second. */
  update(done: number): void;
  /** Prints a line of its own, above the bar. On JSON output it is an event `{"event":"note"}`. */
  note(text: string): void;
  /** Draws the last state and ends the line. */
  finish(): void;
};

const terminalInterval = 100;
const logInterval = 2_000;

/** Makes a {@link Progress} for the kind of stream that `terminal.stderr` is. */
export function createProgress(terminal: Pick<Terminal, 'stderr'>, options: ProgressOptions): Progress {
  const now = options.now ?? (() => performance.now());
  const started = now();
  const { stderr } = terminal;
  const drawsBar = stderr.isTTY === true;
  const interval = drawsBar ? terminalInterval : logInterval;
  let done = 0;
  let lastDrawn = Number.NEGATIVE_INFINITY;
  /** Whether the cursor stands behind a bar. */
  let isOpen = false;
  const endLine = () => {
    if (isOpen) stderr.write('\n');
    isOpen = false;
  };

  const draw = (event: 'progress' | 'done') => {
    lastDrawn = now();
    const state = measure(done, options.total, (lastDrawn - started) / 1000);
    if (drawsBar) {
      stderr.write(`\r${formatBar(options, state, stderr.columns || 80)}\x1b[K`);
      isOpen = true;
    } else {
      stderr.write(`${JSON.stringify({ event, label: options.label, unit: options.unit, ...state })}\n`);
    }
  };

  return {
    update(count) {
      done = count;
      if (now() - lastDrawn >= interval) draw('progress');
    },
    note(text) {
      isOpen = false;
      stderr.write(drawsBar ? `\r\x1b[K${text}\n` : `${JSON.stringify({ event: 'note', text })}\n`);
    },
    finish() {
      draw('done');
      endLine();
    },
    [Symbol.dispose]: endLine,
  };
}

type State = {
  readonly done: number;
  readonly total: number | null;
  /** Seconds since the start. */
  readonly elapsed: number;
  /** Units a second over the whole job. */
  readonly rate: number;
  /** Seconds to go; `null` while unknown. */
  readonly eta: number | null;
};

function measure(done: number, total: number | undefined, elapsed: number): State {
  const rate = elapsed > 0 ? done / elapsed : 0;
  const eta = total === undefined || rate === 0 ? null : Math.max(0, total - done) / rate;
  return {
    done,
    total: total ?? null,
    elapsed: round(elapsed),
    rate: round(rate),
    eta: eta === null ? null : round(eta),
  };
}

function formatBar(options: ProgressOptions, state: State, width: number): string {
  const count = state.total === null ? `${state.done}` : `${state.done}/${state.total}`;
  const facts = [`${count} ${options.unit}`, `${state.rate.toFixed(state.rate < 10 ? 1 : 0)}/s`];
  if (state.eta !== null && state.done !== state.total) facts.push(`${formatSeconds(state.eta)} left`);
  else facts.push(formatSeconds(state.elapsed));
  const text = `${options.label} ${facts.join(', ')}`;
  const cells = Math.min(30, width - text.length - 4);
  if (state.total === null || cells < 5) return text.slice(0, Math.max(0, width - 1));
  const filled =
    state.total === 0 ? cells : Math.round((cells * Math.min(state.done, state.total)) / state.total);
  return `${options.label} ${'█'.repeat(filled)}${'░'.repeat(cells - filled)} ${facts.join(', ')}`;
}

/** Seconds as people say them: `8 s`, `3:05`, `2:10:00`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const pad = (n: number) => String(n).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
