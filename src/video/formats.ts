/**
 * Forms in which frames can be written, by file ending: `mp4` (H.264, plays everywhere), `webm` (VP9), `gif`,
 * `webp` (animated, or a still when there is one frame), `png` and `jpeg` (one frame), `frames` (a folder of numbered
 * PNG files with `frames.json` beside them).
 */
export type WriteFormat = 'mp4' | 'webm' | 'gif' | 'webp' | 'png' | 'jpeg' | 'frames';

const endings: ReadonlyMap<string, WriteFormat> = new Map([
  ['.mp4', 'mp4'],
  ['.webm', 'webm'],
  ['.gif', 'gif'],
  ['.webp', 'webp'],
  ['.png', 'png'],
  ['.jpg', 'jpeg'],
  ['.jpeg', 'jpeg'],
  ['', 'frames'],
]);

/** The endings that {@link formatOf} knows, for messages. */
export const formatNames = `${[...endings.keys()].filter(Boolean).join(', ')}, or a name without ending for a folder of frames`;

/** The format that `path` asks for by its ending (none, or a slash at the end, means a frame folder); undefined if none does. */
export function formatOf(path: string): WriteFormat | undefined {
  if (path.endsWith('/')) return 'frames';
  const name = path.split('/').pop() ?? '';
  const dot = name.lastIndexOf('.');
  return endings.get(dot > 0 ? name.slice(dot).toLowerCase() : '');
}
