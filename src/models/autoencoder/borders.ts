import { concat } from '../../tensor/functions.ts';
import { at } from '../../tensor/shape.ts';
import { type Tensor, zeros } from '../../tensor/tensor.ts';

/**
 * Last frames seen by each layer that looks back in time, in the order of the layers: what a causal network must keep of a
 * video to go on with it. Each is [B, frames, H, W, C] at the layer's own resolution.
 */
export type BorderCache = readonly Tensor[];

/**
 * The frames before a stretch of video, for each layer that looks back: zeros at the start of a video, later what the
 * previous stretch left. One is made for each pass through a network; its layers call {@link precede} in order.
 */
export class Borders {
  /** What the next stretch needs, complete once every layer ran. */
  readonly next: Tensor[] = [];
  readonly #previous: BorderCache | undefined;

  /** @param previous `next` of the stretch before; left out at the start of a video. */
  constructor(previous?: BorderCache) {
    this.#previous = previous;
  }

  /** Whether the stretch is the start of a video. */
  get atStart(): boolean {
    return this.#previous === undefined;
  }

  /** x [B, T, H, W, C] with the `count` frames before it in front: [B, count + T, H, W, C]. */
  precede(x: Tensor, count: number): Tensor {
    const [B, , ...rest] = x.shape;
    const before =
      this.#previous === undefined
        ? zeros({ shape: [B ?? 1, count, ...rest], dtype: x.dtype })
        : at(this.#previous, this.next.length);
    const joined = concat([before, x], 1);
    this.next.push(joined.slice(1, at(joined.shape, 1) - count));
    return joined;
  }
}
