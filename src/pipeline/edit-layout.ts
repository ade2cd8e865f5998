/** What an edit has to fit its new frames to. */
export interface EditEnds {
  /** Frames of the given video before the new ones; left out when nothing comes before. */
  readonly before?: number | undefined;
  /** Frames of the given video after the new ones; left out when nothing comes after. */
  readonly after?: number | undefined;
  /** New frames, at least 1. */
  readonly frames: number;
}

/** Where known and new frames lie in the passage that is sampled. */
export interface EditLayout {
  /** Latent frames of the passage. */
  readonly latentFrames: number;
  /** The first pixel frame of the passage that is shown as new, and the first after them that is not. */
  readonly from: number;
  readonly to: number;
  /** What of the video before is known. */
  readonly before?: KnownBefore;
  /** What of the video after is known. */
  readonly after?: KnownAfter;
}

/** Known latent frames of the video that comes before the new frames: the passage's first. */
export interface KnownBefore {
  /** Frames that are encoded, as a video of their own: 1 + 4 k. */
  readonly frames: number;
  /** Frames behind them, its last, that share a latent frame with new ones: 0 to 2. That latent frame is not known. */
  readonly shared: number;
}

/** Known latent frames of the video that comes after the new frames. */
export interface KnownAfter {
  /** Latent frame of the passage at which they begin. */
  readonly at: number;
  /** Its first frames that share a latent frame with new ones: 0 to 3. That latent frame is not known. */
  readonly shared: number;
  /** Latent frames that are known, each of four frames from `shared` on. */
  readonly groups: number;
}

/**
 * Latent frames known at each side. With as many new ones between they come to about what training showed: more would
 * cost time and lie further from the new frames.
 */
const contextLatents = 3;

/** Given frames before the new ones that share a latent frame with them, the best number first: the rest is better known. */
const sharedBefore = [1, 2, 0] as const;

/**
 * Lays an edit out on the grid of the causal autoencoder, whose latent frame 0 is one pixel frame and whose others are
 * `stride` each.
 *
 * The given frames beside the new ones share a latent frame with them where that can be: such a latent frame is not known,
 * and the frames in it that are given are not taken from it. Within a latent frame motion is smooth, and what the model
 * makes of a given frame shows how far it is from what is given (`seam.ts`), while from one latent frame to the
 * next what is sampled may jump. Surplus frames at the outer end are cut. Every number of new frames is thus met exactly.
 * @param stride pixel frames of a latent frame.
 * @returns `after.groups` is 0 when the video after is too short for one.
 */
export function layoutEdit({ before, after, frames }: EditEnds, stride: number): EditLayout {
  // Without a video before, latent frame 0 is new and a single frame, and there may be surplus frames at the beginning.
  const single = before === undefined ? 1 : 0;
  const leads = before === undefined ? [0, stride - 1] : sharedOf(before, stride);
  const unknown = (lead: number) => Math.ceil((lead + frames - single) / stride);
  const sharedAfter = (lead: number) => unknown(lead) * stride - (lead + frames - single);
  const lead = leads.find((one) => after === undefined || sharedAfter(one) > 0) ?? leads[0] ?? 0;
  const whole = before === undefined ? 0 : wholeLatents(before - lead, stride);
  const from = lead + (before === undefined ? 0 : 1 + whole * stride);
  const at = 1 + whole + unknown(lead);
  const shared = sharedAfter(lead);
  const groups = after === undefined ? 0 : Math.min(contextLatents, Math.floor((after - shared) / stride));
  return {
    latentFrames: at + groups,
    from,
    to: from + frames,
    ...(before !== undefined && { before: { frames: from - lead, shared: lead } }),
    ...(after !== undefined && { after: { at, shared, groups } }),
  };
}

/** Most frames that {@link layoutEdit} takes from the end of a video, and from the beginning of one. */
export function contextFrames(stride: number): { readonly before: number; readonly after: number } {
  return {
    before: 1 + (contextLatents - 1) * stride + Math.max(...sharedBefore),
    after: contextLatents * stride + stride - 1,
  };
}

/** Latent frames of a passage, `from` up to but not including `to`. */
export interface LatentRange {
  readonly from: number;
  readonly to: number;
}

/**
 * For each seam the latent frame that holds the given frame beside the new ones, and its neighbour on the side of the new
 * ones: what blending the new frames to the given ones changes most. Where they are few, some may be known.
 */
export function latentsAtSeams(layout: EditLayout, stride: number): readonly LatentRange[] {
  const { before, after, from, latentFrames } = layout;
  const last = Math.ceil((from - 1) / stride);
  return [
    ...(before === undefined ? [] : [{ from: last, to: Math.min(latentFrames, last + 2) }]),
    ...(after === undefined ? [] : [{ from: Math.max(0, after.at - 2), to: after.at }]),
  ];
}

/** Numbers of frames that can be shared and leave a frame to be known, or a latent frame that shows motion if there is one. */
function sharedOf(before: number, stride: number): number[] {
  const least = before > stride ? 1 + stride : 1;
  return sharedBefore.filter((shared) => before - shared >= least);
}

/** Latent frames of `stride` frames that are known of a video before, besides its single first one. */
function wholeLatents(available: number, stride: number): number {
  return Math.min(contextLatents - 1, Math.floor((available - 1) / stride));
}
