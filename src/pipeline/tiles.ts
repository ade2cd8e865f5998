import { type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { at } from '../tensor/shape.ts';

/** A rectangle of a grid of positions. */
export interface Tile {
  readonly row: number;
  readonly column: number;
  readonly rows: number;
  readonly columns: number;
}

/** How an axis is cut, in positions. */
export interface TileRule {
  /** Most positions of a tile along an axis; shorter axes are not cut. */
  readonly size: number;
  /** Least positions that neighbours share, 0 or more and below `size`. */
  readonly overlap: number;
  /**
   * Positions next to a cut edge that the cut may have changed. From an overlap of twice that on they are not used at
   * all, and tiles change nothing.
   */
  readonly reach: number;
}

/** The tiles of one frame size, all of one shape, and how their results become a frame. */
export class TilePlan {
  readonly tiles: readonly Tile[];
  readonly #rows: AxisPlan;
  readonly #columns: AxisPlan;

  /** @param scale positions of a result along each axis for a position of the grid, such as 8 pixels for a latent. */
  constructor(height: number, width: number, rule: TileRule, scale: number) {
    this.#rows = new AxisPlan(height, rule, scale);
    this.#columns = new AxisPlan(width, rule, scale);
    this.tiles = this.#rows.starts.flatMap((row) =>
      this.#columns.starts.map((column) => ({
        row,
        column,
        rows: this.#rows.length,
        columns: this.#columns.length,
      })),
    );
  }

  /**
   * Whole frames out of the tiles' results, given in the order of `tiles`: f32 [1, T, rows, columns, C] at the result's
   * scale -> values of [T, height, width, C]. The weights of the tiles add up to 1 at every position.
   */
  blend(results: readonly HostTensor[]): Float32Array {
    const [, frames, , , channels] = at(results, 0).shape as readonly [
      number,
      number,
      number,
      number,
      number,
    ];
    const [height, width] = [this.#rows.total, this.#columns.total];
    const out = new Float32Array(frames * height * width * channels);
    const columnTiles = this.#columns.starts.length;
    results.forEach((tensor, index) => {
      const result = toFloat32(tensor);
      const rows = at(this.#rows.spans, Math.floor(index / columnTiles));
      const columns = at(this.#columns.spans, index % columnTiles);
      let from = 0;
      for (let frame = 0; frame < frames; frame++) {
        for (const [row, rowWeight] of rows.weights.entries()) {
          let to = ((frame * height + rows.start + row) * width + columns.start) * channels;
          for (const columnWeight of columns.weights) {
            const weight = rowWeight * columnWeight;
            for (let channel = 0; channel < channels; channel++, from++, to++) {
              out[to] = (out[to] ?? 0) + weight * (result[from] ?? 0);
            }
          }
        }
      }
    });
    return out;
  }
}

/** Where a tile's result lies on an axis, and the share that it has in each position. */
interface Span {
  readonly start: number;
  readonly weights: Float64Array;
}

/** One axis of a {@link TilePlan}: tiles of one length, evenly spread, the first and the last flush with the edges. */
class AxisPlan {
  readonly length: number;
  readonly starts: readonly number[];
  /** Positions of the whole axis, at the result's scale. */
  readonly total: number;
  readonly spans: readonly Span[];

  constructor(extent: number, { size, overlap, reach }: TileRule, scale: number) {
    this.length = Math.min(size, extent);
    const count = extent <= size ? 1 : Math.ceil((extent - overlap) / (size - overlap));
    this.starts = Array.from({ length: count }, (_, i) =>
      Math.round((i * (extent - this.length)) / Math.max(1, count - 1)),
    );
    this.total = extent * scale;
    const unused = overlap >= 2 * reach ? reach * scale : 0;
    const ramp = Math.max(1, overlap * scale - 2 * unused);
    // A tile's say rises from its cut edges inwards, once past the positions that are not used.
    const rise = (distance: number) => Math.min(1, Math.max(0, (distance + 0.5 - unused) / ramp));
    const raw = this.starts.map((start) => ({
      start: start * scale,
      weights: Float64Array.from({ length: this.length * scale }, (_, i) => {
        const before = start === 0 ? 1 : rise(i);
        const after = start + this.length === extent ? 1 : rise(this.length * scale - 1 - i);
        return Math.min(before, after);
      }),
    }));
    this.spans = normalized(raw, this.total);
  }
}

/** The same spans with weights that add up to 1 at every position. */
function normalized(spans: readonly Span[], total: number): Span[] {
  const sums = new Float64Array(total);
  for (const { start, weights } of spans) {
    for (const [i, weight] of weights.entries()) sums[start + i] = (sums[start + i] ?? 0) + weight;
  }
  return spans.map(({ start, weights }) => ({
    start,
    weights: weights.map((weight, i) => weight / at(sums, start + i)),
  }));
}
