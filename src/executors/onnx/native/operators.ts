import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';

// koffi unloads a library that nothing refers to any more; ONNX Runtime goes on calling into this one.
const loaded: unknown[] = [];

const shipped = fileURLToPath(
  new URL(`../../../../native/prebuilt/${process.platform}-${process.arch}`, import.meta.url),
);

/**
 * Our own operators, each the address of an `OrtCustomOp`, from the library that `native/build.sh` builds. None where
 * there is no such library or it cannot be loaded; then models do without.
 * @param folder where the library is; default the one that the package ships for this platform.
 */
export function loadOperators(folder = shipped): readonly bigint[] {
  const file = join(folder, 'libzoetrope-kernels.so');
  if (!existsSync(file)) return [];
  try {
    const library = koffi.load(file);
    loaded.push(library);
    const operator = library.func('zoetrope_operator', 'void *', ['size_t']);
    const found: bigint[] = [];
    for (
      let next = operator(0) as bigint | null;
      next !== null;
      next = operator(found.length) as bigint | null
    )
      found.push(next);
    return found;
  } catch {
    return [];
  }
}
