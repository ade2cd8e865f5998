import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { UserError } from '../errors.ts';

/**
 * SHA-256 of a file, hexadecimal: what latent caches and transformers know their autoencoder by.
 * @throws UserError when it cannot be read.
 */
export async function fileDigest(path: string): Promise<string> {
  const content = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new UserError(`${path}: cannot be read (${error.code}); check the path`);
  });
  return createHash('sha256').update(content).digest('hex');
}
