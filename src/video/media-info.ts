/** What a media file says of its video, before any frame is decoded. */
export interface MediaInfo {
  /** Container, e.g. `mp4`, `matroska` (webm too), `avi`, `mpegts`, `gif`, `png`, `folder` (numbered pictures). */
  readonly format: string;
  /** Codec, e.g. `h264`, `vp9`, `gif`, `png`. */
  readonly codec: string;
  /** Width as displayed, in pixels: after rotation, and with non-square pixels stretched to square ones. */
  readonly width: number;
  /** Height as displayed, in pixels. */
  readonly height: number;
  /** Size of the coded picture, before rotation and stretching. */
  readonly coded: { readonly width: number; readonly height: number };
  /** Clockwise turn already applied to `width` and `height`, in degrees. */
  readonly rotation: 0 | 90 | 180 | 270;
  /** Width of a coded pixel divided by its height; 1 for square pixels. */
  readonly pixelAspect: number;
  /** Seconds the container claims for the video; undefined where it does not say. 0 is never given; a still has none. */
  readonly duration: number | undefined;
  /** Frames per second: the container's average, else its nominal rate; 1 for a still, undefined where it does not say. */
  readonly rate: number | undefined;
  /** Frames the container claims, edit lists applied where known; undefined where it does not say. */
  readonly frames: number | undefined;
  /** Whether there is more than one frame to expect. */
  readonly still: boolean;
  /** Size of the file in bytes; for a frame folder, of all its pictures. */
  readonly bytes: number;
}
