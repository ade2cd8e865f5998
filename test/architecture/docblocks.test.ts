import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const src = resolve(import.meta.dirname, '../../src');
const declaration =
  /^export (?:default )?(?:abstract )?(?:async )?(?:const|let|function\*?|class|interface|type|enum) (\w+)/;

/** Exported symbols of a text whose declaration does not directly follow a docblock. */
function undocumented(text: string): string[] {
  const lines = text.split('\n');
  return lines.flatMap((line, index) => {
    const name = line.match(declaration)?.[1];
    if (name === undefined) return [];
    const isDocumented = lines[index - 1]?.trimEnd().endsWith('*/') ?? false;
    const isOverload = new RegExp(`^export (?:async )?function ${name}\\b`).test(lines[index - 1] ?? '');
    return isDocumented || isOverload ? [] : [name];
  });
}

describe('every exported symbol has a docblock', () => {
  it('the gate sees one that has none', () => {
    expect(
      undocumented('/** Yes. */\nexport const a = 1;\n\nexport function b() {}\nexport interface C {}\n'),
    ).toEqual(['b', 'C']);
  });

  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.ts'),
  );
  it.each(files)('%s', (file) => {
    expect(undocumented(readFileSync(join(src, file), 'utf8'))).toEqual([]);
  });
});
