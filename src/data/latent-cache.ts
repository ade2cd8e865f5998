import { createHash } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.ts';
import { UserError } from '../errors.ts';
import { entryOf, openSafetensors, type SafetensorsFile, writeSafetensors } from '../storage/safetensors.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { at, type Shape } from '../tensor/shape.ts';

/** Captions of a clip by level of detail. */
export type CachedCaptions = Readonly<Record<'short' | 'medium' | 'detailed', string>>;

/** What a cache holds and what it was made from: plain data. */
export interface LatentCacheHeader {
  /** SHA-256 of the autoencoder's file: latents of another one are another language. */
  readonly autoencoder: string;
  /** The latents' statistics and strides, as the autoencoder's file has them. */
  readonly latent: object;
  /** Where the clips come from: the data part of a recipe. */
  readonly source: object;
  /** Number of clips. */
  readonly clips: number;
}

/** A clip to be stored. */
export interface ClipToCache {
  /** Normalised latents, f32 [T', H', W', C]. */
  readonly latents: HostTensor;
  readonly captions: CachedCaptions;
  /** How much of each latent position objects cover, 0 to 1, [T', H', W'], where it is known. */
  readonly coverage?: HostTensor | undefined;
}

/** Clips in one file. */
export const clipsPerShard = 512;

const headerFile = 'cache.json';
const format = 'latent cache 1';

/**
 * Clips encoded once, so that training a transformer never decodes: a folder of safetensors files of
 * {@link clipsPerShard} clips each, latents and how much objects cover of them in f16, captions in the metadata.
 */
export class LatentCache implements AsyncDisposable {
  readonly header: LatentCacheHeader;
  /** Where the autoencoder was when the cache was made; undefined in caches of before. */
  readonly autoencoderFile: string | undefined;
  /** Digest of the header, which with the clips' order decides the data: 16 hexadecimal digits. */
  readonly digest: string;
  readonly #shards: readonly SafetensorsFile[];
  readonly #captions: readonly CachedCaptions[];
  #covered: readonly Uint8Array[] = [];

  private constructor(
    { header, autoencoderFile }: StoredHeader,
    shards: readonly SafetensorsFile[],
    captions: readonly CachedCaptions[],
  ) {
    this.header = header;
    this.autoencoderFile = autoencoderFile;
    this.digest = createHash('sha256').update(JSON.stringify(header)).digest('hex').slice(0, 16);
    this.#shards = shards;
    this.#captions = captions;
  }

  /**
   * Opens a complete cache; its memory is that of the captions and the files' headers.
   * @throws UserError when it is missing, incomplete or damaged.
   */
  static async open(folder: string): Promise<LatentCache> {
    const stored = await readHeader(folder);
    if (stored === undefined)
      throw new UserError(`${folder}: is no latent cache; make one with zoetrope train cache`);
    const { header } = stored;
    const shards: SafetensorsFile[] = [];
    const captions: CachedCaptions[] = [];
    try {
      for (let shard = 0; shard * clipsPerShard < header.clips; shard++) {
        const path = shardPath(folder, shard);
        if (!(await exists(path))) {
          throw new UserError(
            `${folder}: the latent cache is incomplete; finish it with zoetrope train cache`,
          );
        }
        const file = await openSafetensors(path);
        shards.push(file);
        captions.push(...(JSON.parse(file.metadata.get('captions') ?? '[]') as CachedCaptions[]));
      }
      if (captions.length !== header.clips) {
        throw new UserError(
          `${folder}: has captions of ${captions.length} clips, not ${header.clips}; make it anew`,
        );
      }
    } catch (error) {
      await Promise.all(shards.map((file) => file.close()));
      throw error;
    }
    return new LatentCache(stored, shards, captions);
  }

  /** Captions of clip `index`. */
  captions(index: number): CachedCaptions {
    return at(this.#captions, index);
  }

  /** Shape of the latents of clip `index`, [T', H', W', C]. */
  shape(index: number): Shape {
    const stored = this.#shardOf(index).tensors.get(nameOf(index));
    if (stored === undefined) throw new Error(`the latent cache has no clip ${index}`);
    return stored.shape;
  }

  /**
   * Normalised latents of clip `index`, f16 [T', H', W', C], as they are stored.
   * @throws UserError when the file holds something else.
   */
  async read(index: number): Promise<HostTensor<'f16'>> {
    const { path, read } = this.#shardOf(index);
    const stored = await read(nameOf(index));
    if (stored.dtype !== 'f16')
      throw new UserError(`${path}: clip ${index} is ${stored.dtype}, not f16; make the cache anew`);
    return stored;
  }

  /** Whether it is known of all clips where objects are; of caches of before it is not. */
  get hasCoverage(): boolean {
    return this.#captions.every((_, index) => this.#shardOf(index).tensors.has(coverageNameOf(index)));
  }

  /** How much of each latent position of clip `index` objects cover, 0 to 1, f32 [T', H', W']: see {@link hasCoverage}. */
  async coverage(index: number): Promise<HostTensor<'f32'>> {
    const stored = await this.#shardOf(index).read(coverageNameOf(index));
    return fromFloat32('f32', stored.shape, toFloat32(stored));
  }

  /**
   * Reads for all clips which positions objects cover, a byte each, for {@link covered}: see {@link hasCoverage}. Takes some
   * seconds for 100,000 clips.
   */
  async loadCovered(): Promise<void> {
    const covered: Uint8Array[] = [];
    for (let first = 0; first < this.header.clips; first += clipsPerShard) {
      const count = Math.min(clipsPerShard, this.header.clips - first);
      const shard = await Promise.all(Array.from({ length: count }, (_, i) => this.coverage(first + i)));
      covered.push(...shard.map(({ data }) => Uint8Array.from(data, (share) => (share > 0 ? 1 : 0))));
    }
    this.#covered = covered;
  }

  /** Of each latent position of clip `index`, in the order of [T', H', W'], 1 where objects cover any of it, else 0. */
  covered(index: number): Uint8Array {
    return at(this.#covered, index);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#shards.map((file) => file.close()));
  }

  #shardOf(index: number): SafetensorsFile {
    return at(this.#shards, Math.floor(index / clipsPerShard));
  }
}

/**
 * Begins or goes on with a cache.
 * @param autoencoderFile where the autoencoder is; it may move.
 * @returns numbers of the shards that are missing.
 * @throws UserError when the folder holds another cache, or cannot be written.
 */
export async function prepareLatentCache(
  folder: string,
  header: LatentCacheHeader,
  autoencoderFile?: string,
): Promise<number[]> {
  await mkdir(folder, { recursive: true });
  const before = (await readHeader(folder))?.header;
  if (before !== undefined && JSON.stringify(before) !== JSON.stringify(header)) {
    const differing = (['autoencoder', 'source', 'clips', 'latent'] as const).find(
      (name) => JSON.stringify(before[name]) !== JSON.stringify(header[name]),
    );
    throw new UserError(
      `${folder}: holds latents of another ${differing}; choose another folder, or remove it`,
    );
  }
  await writeFileAtomic(
    join(folder, headerFile),
    `${JSON.stringify({ format, autoencoderFile, ...header })}\n`,
  );
  const shards = Array.from({ length: Math.ceil(header.clips / clipsPerShard) }, (_, shard) => shard);
  const there = await Promise.all(shards.map((shard) => exists(shardPath(folder, shard))));
  return shards.filter((shard) => there[shard] !== true);
}

/**
 * Writes a shard, wholly or not at all.
 * @param clips its clips in order; all of {@link clipsPerShard} but in the last shard.
 */
export async function writeLatentShard(
  folder: string,
  shard: number,
  clips: readonly ClipToCache[],
): Promise<void> {
  const half = (name: string, tensor: HostTensor) =>
    entryOf(name, fromFloat32('f16', tensor.shape, toFloat32(tensor)));
  const stored = clips.flatMap(({ latents, coverage }, i) => {
    const index = shard * clipsPerShard + i;
    const covered = coverage === undefined ? [] : [half(coverageNameOf(index), coverage)];
    return [half(nameOf(index), latents), ...covered];
  });
  const captions = JSON.stringify(clips.map((clip) => clip.captions));
  await writeSafetensors(shardPath(folder, shard), stored, new Map([['captions', captions]]));
}

/** A header as it is in the file. */
interface StoredHeader {
  readonly header: LatentCacheHeader;
  readonly autoencoderFile: string | undefined;
}

async function readHeader(folder: string): Promise<StoredHeader | undefined> {
  const content = await readFile(join(folder, headerFile), 'utf8').catch(() => undefined);
  if (content === undefined) return undefined;
  try {
    const {
      format: found,
      autoencoderFile,
      ...header
    } = JSON.parse(content) as LatentCacheHeader & { format: string; autoencoderFile?: string };
    if (found === format) return { header, autoencoderFile };
  } catch {
    // Refused below, as everything that is not ours.
  }
  throw new UserError(`${join(folder, headerFile)}: is not of the format '${format}'; remove the folder`);
}

function shardPath(folder: string, shard: number): string {
  return join(folder, `shard-${String(shard).padStart(5, '0')}.safetensors`);
}

function nameOf(index: number): string {
  return String(index).padStart(8, '0');
}

function coverageNameOf(index: number): string {
  return `${nameOf(index)}.coverage`;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}
