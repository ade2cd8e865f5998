import { readFile } from 'node:fs/promises';
import { UserError } from '../errors.ts';
import { columns, suggestion, type Terminal, UsageError } from './command.ts';
import { type CommandEntry, type CommandGroup, commands } from './commands.ts';

/**
 * Runs the `zoetrope` program on the arguments after its name; resolves to the exit code:
 * 0 done, 1 could not be done (or, for checks, found something wrong), 2 bad command line, 130 interrupted.
 *
 * A {@link UserError} is printed as one line. Other errors are faults of ours and keep their stack trace.
 */
export async function main(argv: readonly string[], terminal?: Terminal): Promise<number> {
  if (terminal !== undefined) return await runReporting(argv, terminal);
  using interrupt = interruptible();
  process.stdout.on('error', exitOnBrokenPipe);
  return await runReporting(argv, {
    stdout: process.stdout,
    stderr: process.stderr,
    signal: interrupt.signal,
  });
}

async function runReporting(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    return await runCommand(argv, terminal);
  } catch (error) {
    if (terminal.signal.aborted) return 130;
    if (!(error instanceof UserError)) throw error;
    const isUsage = error instanceof UsageError;
    terminal.stderr.write(isUsage ? `${error.message}\n` : `zoetrope: ${error.message}\n`);
    return isUsage ? 2 : 1;
  }
}

async function runCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
  const first = argv[0];
  if (first === '--version' || first === '-V') {
    terminal.stdout.write(`${await packageVersion()}\n`);
    return 0;
  }
  if (first === undefined || isHelp(first)) {
    (first === undefined ? terminal.stderr : terminal.stdout).write(rootHelp());
    return first === undefined ? 2 : 0;
  }
  const entry = find(commands, first, 'zoetrope');
  if (!('commands' in entry)) return await runEntry(entry, first, argv.slice(1), terminal);
  const second = argv[1];
  if (second === undefined || isHelp(second)) {
    (second === undefined ? terminal.stderr : terminal.stdout).write(groupHelp(first, entry));
    return second === undefined ? 2 : 0;
  }
  const nested = find(entry.commands, second, `zoetrope ${first}`);
  return await runEntry(nested, `${first} ${second}`, argv.slice(2), terminal);
}

async function runEntry(
  entry: CommandEntry,
  name: string,
  argv: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const command = await entry.load();
  const path = `zoetrope ${name}`;
  const ownArguments = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
  if (ownArguments.some(isHelp)) {
    terminal.stdout.write(command.help(path));
    return 0;
  }
  return await command.run(path, argv, terminal);
}

function find<E>(entries: { readonly [name: string]: E }, name: string, path: string): E {
  const entry = Object.hasOwn(entries, name) ? entries[name] : undefined;
  if (entry !== undefined) return entry;
  const kind = name.startsWith('-') ? 'option' : 'command';
  throw new UsageError(
    `${path}: unknown ${kind} '${name}'${suggestion(name, Object.keys(entries))}; see ${path} --help`,
  );
}

function isHelp(argument: string): boolean {
  return argument === '--help' || argument === '-h';
}

function rootHelp(): string {
  const rows = Object.entries(commands).flatMap(([name, entry]): [string, string][] =>
    'commands' in entry
      ? Object.entries(entry.commands).map(([nested, { summary }]) => [`${name} ${nested}`, summary])
      : [[name, entry.summary]],
  );
  return [
    'Zoetrope: text to video, trained from zero and run on your own machine.',
    'Usage: zoetrope COMMAND [options]',
    `Commands:\n${columns(rows)}`,
    `Options:\n${columns([
      ['--help', 'Show help, for the program or for any command'],
      ['--version', 'Show the version'],
    ])}`,
    'Example:\n  zoetrope dataset check ./clips\n',
  ].join('\n\n');
}

function groupHelp(name: string, group: CommandGroup): string {
  const rows = Object.entries(group.commands).map(([nested, { summary }]): [string, string] => [
    nested,
    summary,
  ]);
  const example = `zoetrope ${name} ${rows[0]?.[0] ?? ''} --help`;
  return `${group.summary}\n\nUsage: zoetrope ${name} COMMAND [options]\n\nCommands:\n${columns(rows)}\n\nExample:\n  ${example}\n`;
}

async function packageVersion(): Promise<string> {
  // Two folders up from both src/cli and dist/cli.
  const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** The first Ctrl-C asks for a clean stop through the signal; the second ends the process at once. */
function interruptible(): { readonly signal: AbortSignal; [Symbol.dispose](): void } {
  const controller = new AbortController();
  const onInterrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write('\nzoetrope: stopping; press Ctrl-C again to end at once\n');
    controller.abort(new UserError('interrupted'));
  };
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onInterrupt);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.off('SIGINT', onInterrupt);
      process.off('SIGTERM', onInterrupt);
    },
  };
}

/** `zoetrope ... | head` closes our output early: that is the reader's right, not an error. */
function exitOnBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
}
