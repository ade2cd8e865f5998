#!/usr/bin/env node
// Starts the built program where there is one, else the TypeScript sources of a checkout.
// Only syntax that old versions parse, so that they reach the line below instead of a SyntaxError.
import { existsSync } from 'node:fs';

if (Number(process.versions.node.split('.')[0]) < 24) {
  process.stderr.write(
    `zoetrope: needs Node.js 24 or newer, this is ${process.version}; install it from https://nodejs.org\n`,
  );
  process.exitCode = 1;
} else {
  const built = new URL('../dist/cli/main.js', import.meta.url);
  const source = new URL('../src/cli/main.ts', import.meta.url);
  const { main } = await import((existsSync(built) ? built : source).href);
  process.exitCode = await main(process.argv.slice(2));
}
