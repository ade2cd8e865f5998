import { Writable } from 'node:stream';
import { main } from '../../src/cli/main.ts';

/** What a command wrote, and its exit code. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command of `zoetrope` in this process. */
export async function runCommand(...argv: string[]): Promise<CommandResult> {
  const written = { stdout: '', stderr: '' };
  const sink = (name: keyof typeof written) =>
    new Writable({
      write(chunk, _encoding, done) {
        written[name] += chunk;
        done();
      },
    });
  const { signal } = new AbortController();
  const code = await main(argv, { stdout: sink('stdout'), stderr: sink('stderr'), signal });
  return { code, ...written };
}
