import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';

/** Our own operators, loaded. */
export interface LoadedOperators {
  /** Each the address of an `OrtCustomOp`. */
  readonly operators: readonly bigint[];
  /** What of the processor they use: `x86-64-v2`, `x86-64-v3` or `x86-64-v4`. */
  readonly level: string;
  /** Whether the processor has what those need that round to bfloat16. */
  readonly bfloat16: boolean;
  /** Gives back the memory that they keep between runs. */
  readonly trim: () => void;
}

// koffi unloads a library that nothing refers to any more; ONNX Runtime goes on calling into this one.
const loaded: unknown[] = [];

const platform = `${process.platform}-${process.arch}`;
const shipped = fileURLToPath(new URL(`../../../../native/prebuilt/${platform}`, import.meta.url));

/**
 * Our own operators, from the library that `native/build.sh` builds.
 * @param folder where the library is; default the one that the package ships for this platform.
 * @throws Error saying in one line why there are none.
 */
export function loadOperators(folder = shipped): LoadedOperators {
  const file = join(folder, 'libzoetrope-kernels.so');
  if (!existsSync(file))
    throw new Error(folder === shipped ? `none are shipped for ${platform}` : `there is no ${file}`);
  const library = koffi.load(file);
  loaded.push(library);
  const level = library.func('zoetrope_level', 'int', [])() as number;
  if (level < 2) throw new Error('this processor lacks some of x86-64-v2, which SSE4.2 is part of');
  const operator = library.func('zoetrope_operator', 'void *', ['size_t']);
  const operators: bigint[] = [];
  for (
    let next = operator(0) as bigint | null;
    next !== null;
    next = operator(operators.length) as bigint | null
  )
    operators.push(next);
  const trim = library.func('zoetrope_trim', 'void', []) as () => void;
  const bfloat16 = (library.func('zoetrope_bfloat16', 'int', [])() as number) !== 0;
  return { operators, level: `x86-64-v${level}`, bfloat16, trim };
}
