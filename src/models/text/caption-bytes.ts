/** Bytes of UTF-8 that make one text token. */
export const bytesPerToken = 4;

/**
 * A caption as the text encoder reads it: UTF-8, filled up with zeros to whole tokens, at least one. The empty caption,
 * which stands for "any video" in classifier-free guidance, is thus one token of zeros.
 *
 * @param maxTokens most text tokens, at least 1; a longer caption is cut between two characters.
 * @returns 4 to 4 maxTokens bytes, a multiple of 4.
 */
export function captionBytes(caption: string, maxTokens: number): Uint8Array {
  // encodeInto writes whole characters only.
  const bytes = new Uint8Array(maxTokens * bytesPerToken);
  const { written } = new TextEncoder().encodeInto(caption, bytes);
  return bytes.slice(0, Math.max(1, Math.ceil(written / bytesPerToken)) * bytesPerToken);
}
