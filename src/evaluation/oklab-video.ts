import { bytesToOklab } from '../data/worlds/colour.ts';
import type { Video } from '../video/frames.ts';

/** A video in Oklab (Ottosson 2020), where distances are about as large as differences look. */
export interface OklabVideo {
  /** Lightness 0 to 1, green to red, blue to yellow; f32 [frames, height, width, 3]. */
  readonly data: Float32Array;
  readonly frames: number;
  readonly height: number;
  readonly width: number;
}

/** Converts every pixel. */
export function toOklabVideo({ data, frames, height, width }: Video): OklabVideo {
  return { data: bytesToOklab(data), frames, height, width };
}
