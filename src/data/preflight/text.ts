import type { DatasetProblem } from '../manifest.ts';
import { type Outcome, outcomes } from '../plan.ts';
import type { WindowSpec } from '../window.ts';
import type { ClipReport, DatasetReport, Totals } from './check.ts';
import type { Histogram } from './histogram.ts';

/** How the text is set. */
export type TextOptions = {
  /** Columns; default 100. */
  readonly width?: number;
  /** Whether to mark headings and outcomes with terminal colours; default false. */
  readonly color?: boolean;
  /** Whether to list every clip and every problem, not the first few of each kind; default false. */
  readonly all?: boolean;
};

/** What the outcomes are called. */
export const outcomeNames = {
  whole: 'kept whole',
  trimmed: 'kept, end trimmed',
  windows: 'cut into windows',
  retimed: 're-timed',
  skipped: 'skipped',
} as const satisfies { [O in Outcome]: string };

const outcomeColors = { whole: 32, trimmed: 36, windows: 34, retimed: 33, skipped: 31 } as const;

/** Lines shown of one kind before `... and n more`. */
const fewLines = 10;

/** The report for a terminal. Every clip is counted under its reason; with `all`, every clip has its line. */
export function formatReport(report: DatasetReport, options: TextOptions = {}): string {
  const page = new Page(options);
  const { totals } = report;
  page.heading(report.path);
  page.line(describeTotals(totals));
  page.line(`For ${describeWindow(report.window)}:`);
  page.gap();
  for (const outcome of outcomes) {
    const count = totals.outcomes[outcome];
    page.bar(outcomeNames[outcome], count, totals.clips, outcomeColors[outcome]);
  }
  page.gap();
  page.line(describeUse(totals));
  page.reasons(report.clips);
  if (options.all === true) page.clips(report.clips);
  page.problems('Errors', report.problems, 'error', 31);
  page.problems('Warnings', report.problems, 'warning', 33);
  page.groups('Same bytes', report.duplicates.exact);
  page.groups('Look the same', report.duplicates.near);
  page.histograms(report.histograms);
  if (report.ignored.length > 0) {
    page.heading(
      `${count(report.ignored.length, 'file')} looked past (neither media nor caption, or hidden)`,
    );
    page.list(report.ignored);
  }
  return page.text();
}

/** One line on the size of a dataset. */
export function describeTotals(totals: Totals): string {
  const videos = `${count(totals.videos, 'video')} (${count(totals.frames, 'frame')}, ${playingTime(totals.seconds)})`;
  const parts = [videos, count(totals.stills, 'still'), bytes(totals.bytes)];
  if (totals.damaged > 0) parts.push(`${number(totals.damaged)} damaged or unreadable`);
  return `${count(totals.clips, 'clip')} in ${count(totals.files, 'file')}: ${parts.join(', ')}`;
}

/** One line on what a recipe takes. */
export function describeWindow(window: WindowSpec): string {
  const { time, space } = window.stride;
  const rate = window.rate === 'native' ? 'native rate' : `${window.rate} fps`;
  return (
    `windows of up to ${window.maxFrames} frames (${time}k + 1) at ${rate}, at least ${window.minSeconds} s, ` +
    `up to ${number(window.maxPixels)} pixels, sides in multiples of ${space}`
  );
}

/** One line on what training gets of a dataset. */
export function describeUse(totals: Totals): string {
  const parts = [`${count(totals.windows, 'window')} of ${count(totals.windowFrames, 'frame')}`];
  parts.push(`${count(totals.trimmedFrames, 'frame')} of used clips trimmed`);
  parts.push(
    `${number(totals.leftOutFrames)} left out and ${number(totals.repeatedFrames)} repeated by re-timing`,
  );
  return `Training gets ${parts.join('; ')}.`;
}

/** Clips that share an outcome and, but for the numbers in it, a reason. */
export type ReasonGroup = {
  readonly outcome: Outcome;
  /** The reason, with `3–12` where the numbers differ from clip to clip. */
  readonly reason: string;
  readonly count: number;
  /** The file of the first of them. */
  readonly example: string;
};

/** Puts the reasons of clips into groups: in the order of the outcomes, the most common first. */
export function groupReasons(clips: readonly ClipReport[]): ReasonGroup[] {
  type Group = {
    outcome: Outcome;
    parts: string[];
    lows: string[];
    highs: string[];
    count: number;
    example: string;
  };
  const groups = new Map<string, Group>();
  for (const { outcome, reasons, file } of clips) {
    for (const reason of reasons) {
      const parts = reason.replace(/\bframe\b/g, 'frames').split(numbers);
      const values = reason.match(numbers) ?? [];
      const key = `${outcome} ${parts.join('#')}`;
      const group = groups.get(key) ?? {
        outcome,
        parts,
        lows: [...values],
        highs: [...values],
        count: 0,
        example: file,
      };
      groups.set(key, group);
      group.count++;
      for (const [i, value] of values.entries()) {
        if (Number(value) < Number(group.lows[i])) group.lows[i] = value;
        if (Number(value) > Number(group.highs[i])) group.highs[i] = value;
      }
    }
  }
  return [...groups.values()]
    .map(({ outcome, parts, lows, highs, count: clipCount, example }) => {
      const range = (i: number) => (lows[i] === highs[i] ? lows[i] : `${lows[i]}–${highs[i]}`);
      const reason = parts.map((part, i) => (i === 0 ? part : `${range(i - 1)}${part}`)).join('');
      return { outcome, reason, count: clipCount, example };
    })
    .sort((a, b) => outcomes.indexOf(a.outcome) - outcomes.indexOf(b.outcome) || b.count - a.count);
}

const numbers = /\d+(?:\.\d+)?/g;

/** A number with `,` between thousands, the same on every machine. */
export function number(value: number): string {
  return value.toLocaleString('en-US');
}

/** `1 clip`, `2 clips`. */
export function count(value: number, noun: string): string {
  return `${number(value)} ${noun}${value === 1 ? '' : 's'}`;
}

function bytes(value: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, value)) / 3));
  return `${power === 0 ? value : (value / 1000 ** power).toPrecision(3)} ${units[power]}`;
}

function playingTime(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  const rest = `${minutes % 60} min ${Math.floor(seconds % 60)} s`;
  return minutes < 60 ? rest : `${Math.floor(minutes / 60)} h ${rest}`;
}

/** File names and captions come from strangers: control characters must not reach the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}|\p{Cf}|\p{Zl}|\p{Zp}/gu, '\u{fffd}');
}

/** Lines of at most `width` characters, broken at spaces; a longer word stands alone. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Lines of text, in the making. */
class Page {
  readonly #lines: string[] = [];
  readonly #width: number;
  readonly #color: boolean;
  readonly #few: number;

  constructor({ width = 100, color = false, all = false }: TextOptions) {
    this.#width = Math.max(60, width);
    this.#color = color;
    this.#few = all ? Number.POSITIVE_INFINITY : fewLines;
  }

  text(): string {
    return `${this.#lines.join('\n')}\n`;
  }

  line(text: string): void {
    this.#lines.push(...wrap(printable(text), this.#width));
  }

  gap(): void {
    this.#lines.push('');
  }

  heading(text: string, color = 1): void {
    if (this.#lines.length > 0) this.gap();
    this.#lines.push(this.#paint(printable(text), color));
  }

  bar(label: string, value: number, total: number, color: number): void {
    const share = total === 0 ? 0 : value / total;
    const cells = value === 0 ? 0 : Math.max(1, Math.round(share * 30));
    const amount = `${number(value).padStart(7)}  ${`${(share * 100).toFixed(1)}%`.padStart(6)}`;
    this.#lines.push(`  ${label.padEnd(18)}${amount}  ${this.#paint('█'.repeat(cells), color)}`);
  }

  reasons(clips: readonly ClipReport[]): void {
    this.heading('What happens, and why');
    for (const { outcome, reason, count: clipCount, example } of groupReasons(clips)) {
      const name = this.#paint(outcomeNames[outcome].padEnd(18), outcomeColors[outcome]);
      const text = clipCount === 1 ? `${reason} (${example})` : reason;
      const [first = '', ...rest] = wrap(printable(text), this.#width - 28);
      this.#lines.push(`  ${number(clipCount).padStart(6)}  ${name}${first}`);
      for (const line of rest) this.#lines.push(' '.repeat(28) + line);
    }
  }

  clips(clips: readonly ClipReport[]): void {
    this.heading('Every clip');
    for (const { file, outcome, windows, reasons } of clips) {
      const frames = windows.length === 0 ? '' : ` [${windows.map((window) => window.frames).join('+')}]`;
      const name = this.#paint(outcomeNames[outcome], outcomeColors[outcome]);
      this.#lines.push(`  ${printable(file)}: ${name}${frames}: ${printable(reasons.join('; '))}`);
    }
  }

  problems(
    title: string,
    problems: readonly DatasetProblem[],
    severity: DatasetProblem['severity'],
    color: number,
  ): void {
    const chosen = problems.filter((problem) => problem.severity === severity);
    if (chosen.length === 0) return;
    this.heading(`${title}: ${number(chosen.length)}`, color);
    this.list(chosen.map(({ at, message }) => `${at}: ${message}`));
  }

  groups(title: string, groups: readonly (readonly string[])[]): void {
    if (groups.length === 0) return;
    const files = groups.reduce((total, group) => total + group.length, 0);
    this.heading(`${title}: ${number(files)} files in ${count(groups.length, 'group')}`, 33);
    this.list(groups.map((group) => group.join(', ')));
  }

  list(lines: readonly string[]): void {
    for (const line of lines.slice(0, this.#few)) {
      const [first = '', ...rest] = wrap(printable(line), this.#width - 6);
      this.#lines.push(`  ${first}`, ...rest.map((part) => `      ${part}`));
    }
    const more = lines.length - this.#few;
    if (more > 0) this.#lines.push(`  ... and ${number(more)} more: --all, --json or --html FILE show each`);
  }

  histograms(histograms: readonly Histogram[]): void {
    for (const { title, bars } of histograms) {
      if (bars.length === 0) continue;
      this.heading(title);
      const most = Math.max(...bars.map((bar) => bar.count));
      for (const bar of bars) {
        const cells = bar.count === 0 ? 0 : Math.max(1, Math.round((bar.count / most) * 40));
        this.#lines.push(
          `  ${bar.label.padStart(16)} ${number(bar.count).padStart(7)}  ${'▇'.repeat(cells)}`,
        );
      }
    }
  }

  #paint(text: string, color: number): string {
    return this.#color && text !== '' ? `\x1b[${color}m${text}\x1b[0m` : text;
  }
}
