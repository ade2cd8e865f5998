import type { MediaInfo } from '../media-info.ts';

/** A frame of an open file, still in the decoder's form. */
export interface SourceFrame {
  /** Seconds since the first frame; strictly ascending over a source. */
  readonly time: number;
  /** Seconds it stays on screen. */
  readonly duration: number;
  /** The pixels in the size asked for, uint8 RGB; converted once. They hold until another frame's are asked for. */
  pixels(): Uint8Array | Promise<Uint8Array>;
  /** Gives the decoder's memory back. */
  free(): void;
}

/** What a source knows when it has ended, for the judgement whether all of the video was there. */
export interface SourceTally {
  /** Whether reading began at the first frame, so that counts can be compared with the file's claims. */
  readonly fromStart: boolean;
  /** Frames given by the decoder, those before the wanted range included. */
  readonly frames: number;
  /** Coded pictures that the file holds (packets); equal to `frames` where there is no such notion. */
  readonly coded: number;
  /** Coded pictures that give no frame by design: cut away by an edit list, or invisible. */
  readonly hidden: number;
  /** Coded pictures that could not be decoded. */
  readonly failed: number;
  /** Frames given although parts of them are missing or guessed. */
  readonly damaged: number;
  /** Frames the container claims; undefined where it does not say. */
  readonly claimedFrames: number | undefined;
  /** Seconds the container claims for the video alone; undefined where it does not say. */
  readonly claimedDuration: number | undefined;
  /** When the last frame leaves the screen, in seconds since the first. */
  readonly lastEnd: number;
  /** Seconds by which the claimed duration may begin before the first frame. */
  readonly offset: number;
  /** Nominal frames per second. */
  readonly rate: number;
  /** Why reading broke off; undefined when the end was reached in order. */
  readonly brokenOff: string | undefined;
}

/** An open file that gives frames in order of time. */
export interface FrameSource {
  readonly info: MediaInfo;
  /** The next frame, or undefined at the end. The caller frees it. */
  next(): Promise<SourceFrame | undefined>;
  tally(): SourceTally;
  close(): void;
}
