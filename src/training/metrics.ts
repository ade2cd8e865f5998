import { appendFile, readFile } from 'node:fs/promises';
import { writeFileAtomic } from '../atomic-file.ts';

/** One line of a run's metrics. */
export interface MetricsLine {
  /** Steps done, this one included. */
  readonly step: number;
  readonly loss: number;
  /**
   * Every further number by name: `gradientNorm`, `rate`, the loss's terms, facts of the batch, `stepsPerSecond`, and
   * `waitedForData`, the share of the time in which no batch was ready: near 0 the device is what limits a training.
   */
  readonly [name: string]: number;
}

/**
 * The lines of a run's metrics file up to step `until`, in order; none when there is no file. A last line that a killed
 * process left half written is passed over.
 */
export async function readMetrics(path: string, until = Number.POSITIVE_INFINITY): Promise<MetricsLine[]> {
  const content = await readFile(path, 'utf8').catch(() => '');
  return content.split('\n').flatMap((line) => {
    const parsed = parseLine(line);
    return parsed !== undefined && parsed.step <= until ? [parsed] : [];
  });
}

/** Appends to a run's metrics as JSON Lines, and keeps what was written for the report. */
export class MetricsLog {
  readonly #path: string;
  readonly #lines: MetricsLine[];

  private constructor(path: string, lines: MetricsLine[]) {
    this.#path = path;
    this.#lines = lines;
  }

  /** Opens the log of a run that stands at step `step`: lines after it are dropped, being made again. */
  static async open(path: string, step: number): Promise<MetricsLog> {
    const lines = await readMetrics(path, step);
    await writeFileAtomic(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    return new MetricsLog(path, lines);
  }

  /** Every line so far. */
  get lines(): readonly MetricsLine[] {
    return this.#lines;
  }

  /** Writes a line. */
  async add(line: MetricsLine): Promise<void> {
    this.#lines.push(line);
    await appendFile(this.#path, `${JSON.stringify(line)}\n`);
  }
}

function parseLine(line: string): MetricsLine | undefined {
  try {
    const value: unknown = JSON.parse(line);
    const isLine = typeof value === 'object' && value !== null && 'step' in value && 'loss' in value;
    return isLine ? (value as MetricsLine) : undefined;
  } catch {
    return undefined;
  }
}
