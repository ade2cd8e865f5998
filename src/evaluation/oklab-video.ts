import { toOklab } from '../data/worlds/colour.ts';
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
  const out = new Float32Array(data.length);
  let [r, g, b] = [-1, -1, -1];
  let lab = toOklab([0, 0, 0]);
  for (let i = 0; i < data.length; i += 3) {
    if (data[i] !== r || data[i + 1] !== g || data[i + 2] !== b) {
      r = data[i] ?? 0;
      g = data[i + 1] ?? 0;
      b = data[i + 2] ?? 0;
      lab = toOklab([r, g, b]);
    }
    out[i] = lab[0];
    out[i + 1] = lab[1];
    out[i + 2] = lab[2];
  }
  return { data: out, frames, height, width };
}
