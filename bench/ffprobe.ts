import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

/** The independent judge of what is in a media file: Debian's FFmpeg, another build than the one we read with. */
export const ffprobePath = '/usr/bin/ffprobe';

/** Whether it is installed. */
export const hasFfprobe: boolean = existsSync(ffprobePath);

/** What ffprobe says of the frames of a file. */
export type ProbedFrames = {
  /** Frames it can decode; 0 when there is no video. */
  readonly frames: number;
  /** From the first frame's time to one average frame after the last one's, in seconds; 0 for one frame. */
  readonly seconds: number;
};

/** Decodes the first video stream of `path` with ffprobe and measures its frames. */
export async function probeFrames(path: string): Promise<ProbedFrames> {
  const { stdout } = await promisify(execFile)(
    ffprobePath,
    '-v quiet -select_streams v:0 -show_entries frame=best_effort_timestamp_time:stream=avg_frame_rate -of json'
      .split(' ')
      .concat(path),
    { maxBuffer: 2 ** 28 },
  ).catch((error: { stdout: string }) => error);
  const probed = JSON.parse(stdout || '{}') as {
    frames?: { best_effort_timestamp_time?: string }[];
    streams?: { avg_frame_rate?: string }[];
  };
  const frames = (probed.frames ?? []).length;
  // Some containers leave out the time of a frame; it plays all the same.
  const times = (probed.frames ?? [])
    .map((frame) => Number(frame.best_effort_timestamp_time))
    .filter((time) => !Number.isNaN(time));
  if (times.length < 2) return { frames, seconds: 0 };
  const [numerator = 0, denominator = 0] = (probed.streams?.[0]?.avg_frame_rate ?? '').split('/').map(Number);
  const span = Math.max(...times) - Math.min(...times);
  const interval = numerator > 0 ? denominator / numerator : span / (times.length - 1);
  return { frames, seconds: span + interval * (1 + frames - times.length) };
}
