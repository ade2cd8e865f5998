/**
 * Forms in which frames can be written, by file ending: `mp4` (H.264, plays everywhere), `webm` (VP9), `gif`,
 * `webp` (animated, or a still when there is one frame), `png` and `jpeg` (one frame), `frames` (a folder of numbered
 * PNG files with `frames.json` beside them).
 */
export type WriteFormat = 'mp4' | 'webm' | 'gif' | 'webp' | 'png' | 'jpeg' | 'frames';

const endings: { readonly [ending: string]: WriteFormat } = {
  '.mp4': 'mp4',
  '.webm': 'webm',
  '.gif': 'gif',
  '.webp': 'webp',
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '': 'frames',
};

/** The format that `path` asks for by its ending (none, or a slash at the end, means a frame folder); undefined if none does. */
export function formatOf(path: string): WriteFormat | undefined {
  const name = path.replace(/\/+$/, '').split('/').pop() ?? '';
  const dot = name.lastIndexOf('.');
  return endings[dot > 0 && !path.endsWith('/') ? name.slice(dot).toLowerCase() : ''];
}
