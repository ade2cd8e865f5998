import { UserError } from '../errors.ts';
import { installedVersion } from '../installed.ts';
import type { WriteFormat } from './formats.ts';

/** Whether files of a format are written by FFmpeg. */
export function isFfmpegFormat(format: WriteFormat): boolean {
  return format === 'mp4' || format === 'webm';
}

/**
 * Checks that FFmpeg is there, without loading it: `npm run bundle` puts it into an archive of its own.
 * @param subject what needs it, for the message.
 * @param otherwise what else can be done, for the message.
 * @throws UserError when this installation lacks it.
 */
export function requireFfmpeg(subject: string, otherwise = ', or use .gif, .webp or .png'): void {
  if (installedVersion('node-av') !== undefined) return;
  throw new UserError(
    `${subject}: needs FFmpeg, which this installation lacks; unpack the media archive over it${otherwise}`,
  );
}
