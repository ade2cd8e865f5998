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
  /** The first pixel frame of the passage that is new, and the first after them that is not. */
  readonly from: number;
  readonly to: number;
  /** Last frames of the video before that are encoded, as a video of their own: 1 + 4 k frames at latent frame 0. */
  readonly before?: number;
  /** What of the video after is known. */
  readonly after?: KnownAfter;
}

/** Known latent frames of the video that comes after the new frames. */
export interface KnownAfter {
  /** Latent frame of the passage at which they begin. */
  readonly at: number;
  /** Its first frames that share a latent frame with new ones: 0 to 3. That latent frame is not known. */
  readonly skip: number;
  /** Latent frames that are known, each of four frames from `skip` on. */
  readonly groups: number;
}

/**
 * Latent frames known at each side. With as many new ones between they come to about what training showed: more would
 * cost time and lie further from the new frames.
 */
const contextLatents = 3;

/**
 * Lays an edit out on the grid of the causal autoencoder, whose latent frame 0 is one pixel frame and whose others are
 * `stride` each.
 *
 * Before the new frames, the last 1 + k stride given ones end with a latent frame, so that every new frame is in one that
 * holds new ones only; surplus frames at the end are cut. After them, given frames fill up the last latent frame that
 * holds new ones: it is not known, and those of its frames that are given are not taken from it. Latent frames from there
 * on are known. Every number of new frames is thus met exactly.
 * @param stride pixel frames of a latent frame.
 * @returns `after.groups` is 0 when the video after is too short for one.
 */
export function layoutEdit({ before, after, frames }: EditEnds, stride: number): EditLayout {
  const context = before === undefined ? undefined : contextBefore(before, stride);
  // Without a video before, latent frame 0 is new and a single frame.
  const first = context === undefined ? 1 : context.latents;
  const from = context === undefined ? 0 : context.frames;
  const own = context === undefined ? frames - 1 : frames;
  const at = first + Math.ceil(own / stride);
  const skip = (at - first) * stride - own;
  const groups = after === undefined ? 0 : Math.min(contextLatents, Math.floor((after - skip) / stride));
  return {
    latentFrames: at + groups,
    from,
    to: from + frames,
    ...(context !== undefined && { before: context.frames }),
    ...(after !== undefined && { after: { at, skip, groups } }),
  };
}

/** Most frames that {@link layoutEdit} takes from the end of a video, and from the beginning of one. */
export function contextFrames(stride: number): { readonly before: number; readonly after: number } {
  return { before: 1 + (contextLatents - 1) * stride, after: contextLatents * stride + stride - 1 };
}

function contextBefore(available: number, stride: number): { frames: number; latents: number } {
  const whole = Math.min(contextLatents - 1, Math.floor((available - 1) / stride));
  return { frames: 1 + whole * stride, latents: 1 + whole };
}
