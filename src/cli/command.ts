import { parseArgs } from 'node:util';
import { UserError } from '../errors.ts';

/**
 * A mistake in the command line itself: unknown command, unknown option, bad value. Exit code 2.
 * Its message names the program, since it is printed as it is.
 */
export class UsageError extends UserError {
  override name = 'UsageError';
}

/** One `--name` option. Booleans are `false` unless given; strings are `undefined` unless given or defaulted. */
export type OptionSpec = {
  readonly type: 'string' | 'boolean';
  /** What the value is called in the help, such as `FILE`; strings only. */
  readonly value?: string;
  /** One letter, for `-x`. */
  readonly short?: string;
  /** One line for the help. */
  readonly help: string;
  /** The value of a string option that is not given; shown in the help. */
  readonly default?: string;
};

/** One positional argument, in order. Only the last ones may be optional. */
export type PositionalSpec = {
  /** In capitals, such as `PATH`. */
  readonly name: string;
  readonly help: string;
  readonly optional?: true;
};

/** The parsed options of a command whose options are `O`. */
export type OptionValues<O extends Readonly<Record<string, OptionSpec>>> = {
  readonly [K in keyof O]: O[K]['type'] extends 'boolean'
    ? boolean
    : O[K] extends { readonly default: string }
      ? string
      : string | undefined;
};

/** Where a command reads its surroundings from, so that tests can run it in process. */
export type Terminal = {
  /** Results go here. */
  readonly stdout: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  /** Progress, warnings and errors go here. */
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  /** Aborted by the first Ctrl-C: stop cleanly and say how to resume. */
  readonly signal: AbortSignal;
};

/** What `run` gets: the parsed command line and the terminal. */
export type Invocation<O extends Readonly<Record<string, OptionSpec>>> = {
  readonly values: OptionValues<O>;
  /** As many as were given; the required ones are always there. */
  readonly positionals: readonly string[];
  readonly terminal: Terminal;
};

/** A subcommand: one file in `src/cli/`, listed in `src/cli/commands.ts`, which loads it only when it is called. */
export type Command<O extends Readonly<Record<string, OptionSpec>> = Readonly<Record<string, OptionSpec>>> = {
  /** A paragraph for the help: what it does, and what its exit codes 0 and 1 mean. */
  readonly description: string;
  readonly positionals: readonly PositionalSpec[];
  readonly options: O;
  /** A command line that works as it stands. */
  readonly example: string;
  /** Returns the exit code. Throws {@link UserError} for the user's mistakes. */
  run(invocation: Invocation<O>): Promise<number>;
};

/** A command as the tree of commands holds it: its options are known to itself only. */
export type LoadedCommand = {
  /** The help of the command; `path` is how it is called, such as `zoetrope dataset check`. */
  help(path: string): string;
  /** Parses `argv` (what follows the command's name) and runs. Throws {@link UsageError}. */
  run(path: string, argv: readonly string[], terminal: Terminal): Promise<number>;
};

/** Makes a {@link LoadedCommand} of a typed {@link Command}. */
export function defineCommand<const O extends Readonly<Record<string, OptionSpec>>>(
  command: Command<O>,
): LoadedCommand {
  return {
    help: (path) => formatHelp(path, command),
    async run(path, argv, terminal) {
      const { values, positionals } = parse(path, command, argv);
      return await command.run({ values, positionals, terminal });
    },
  };
}

/**
 * Reads a number given as an option.
 *
 * Throws {@link UsageError} when `text` is no number, not whole where `integer` is set, or outside [min, max].
 */
export function numberOption(
  name: string,
  text: string,
  range: { readonly min: number; readonly max: number; readonly integer?: boolean },
): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  const kind = range.integer === true ? 'a whole number' : 'a number';
  const fits =
    value >= range.min && value <= range.max && (range.integer !== true || Number.isInteger(value));
  if (!fits) {
    throw new UsageError(
      `zoetrope: --${name} must be ${kind} from ${range.min} to ${range.max}, got '${text}'`,
    );
  }
  return value;
}

/** The candidate nearest to a mistyped word, as `, did you mean 'x'`, or nothing when none is near. */
export function suggestion(word: string, candidates: readonly string[]): string {
  const near = candidates
    .map((candidate) => ({ candidate, distance: editDistance(word.slice(0, 40), candidate) }))
    .filter(({ candidate, distance }) => distance <= Math.max(1, Math.floor(candidate.length / 3)))
    .sort((a, b) => a.distance - b.distance)[0];
  return near === undefined ? '' : `, did you mean '${near.candidate}'`;
}

function parse<O extends Readonly<Record<string, OptionSpec>>>(
  path: string,
  command: Command<O>,
  argv: readonly string[],
): { values: OptionValues<O>; positionals: string[] } {
  const fail = (message: string): never => {
    throw new UsageError(`${path}: ${message}; see ${path} --help`);
  };
  const names = Object.keys(command.options);
  const options = Object.fromEntries(
    Object.entries(command.options).map(([name, { type, short, default: fallback }]) => [
      name,
      {
        type,
        ...(short === undefined ? {} : { short }),
        ...(fallback === undefined ? {} : { default: fallback }),
        ...(type === 'boolean' ? { default: false } : {}),
      },
    ]),
  );
  // Not strict: parseArgs's own messages span several sentences, so its tokens are checked here.
  const parsed = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true });
  for (const token of parsed.tokens) {
    if (token.kind !== 'option') continue;
    const spec = command.options[token.name];
    if (spec === undefined) {
      fail(
        `unknown option ${token.rawName}${suggestion(
          token.rawName,
          names.map((name) => `--${name}`),
        )}`,
      );
    } else if (spec.type === 'string' && (token.value === undefined || looksLikeOption(token))) {
      fail(`option ${token.rawName} needs a value ${spec.value ?? 'VALUE'}`);
    } else if (spec.type === 'boolean' && token.value !== undefined) {
      fail(`option ${token.rawName} takes no value, got '${token.value}'`);
    }
  }
  const missing = command.positionals.filter(({ optional }) => optional !== true)[parsed.positionals.length];
  if (missing !== undefined) fail(`${missing.name} is missing (${missing.help})`);
  const surplus = parsed.positionals[command.positionals.length];
  if (surplus !== undefined) fail(`unexpected argument '${surplus}'`);
  return { values: parsed.values as OptionValues<O>, positionals: parsed.positionals };
}

/** `--out --json`: the value was forgotten. `--out=--json` says that it is meant. */
function looksLikeOption(token: { value?: string | undefined; inlineValue?: boolean | undefined }): boolean {
  return token.inlineValue === false && token.value?.startsWith('--') === true;
}

function formatHelp<O extends Readonly<Record<string, OptionSpec>>>(
  path: string,
  command: Command<O>,
): string {
  const positionals = command.positionals.map(({ name, optional }) =>
    optional === true ? `[${name}]` : name,
  );
  const usage = [path, ...positionals, '[options]'].join(' ');
  const rows: [string, string][] = command.positionals.map(({ name, help }) => [name, help]);
  for (const [name, spec] of Object.entries<OptionSpec>(command.options)) {
    const flag = `--${name}${spec.type === 'string' ? ` ${spec.value ?? 'VALUE'}` : ''}`;
    const withShort = spec.short === undefined ? flag : `-${spec.short}, ${flag}`;
    rows.push([withShort, spec.default === undefined ? spec.help : `${spec.help} (default ${spec.default})`]);
  }
  rows.push(['--help', 'Show this help']);
  return `${command.description}\n\nUsage: ${usage}\n\n${columns(rows)}\n\nExample:\n  ${command.example}\n`;
}

/** Two columns of a help text, the first as wide as its widest entry. */
export function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join('\n');
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
