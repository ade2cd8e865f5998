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
  const { bytes, written } = encoded(caption, maxTokens);
  const padded = new Uint8Array(tokensOf(written) * bytesPerToken);
  padded.set(bytes.subarray(0, written));
  return padded;
}

/** Text tokens of a caption: those of {@link captionBytes}. */
export function captionTokens(caption: string, maxTokens: number): number {
  return tokensOf(encoded(caption, maxTokens).written);
}

const encoder = new TextEncoder();
let scratch = new Uint8Array(0);

/** The caption in bytes that the next call writes over. */
function encoded(
  caption: string,
  maxTokens: number,
): { readonly bytes: Uint8Array; readonly written: number } {
  const most = maxTokens * bytesPerToken;
  if (scratch.length < most) scratch = new Uint8Array(most);
  // encodeInto writes whole characters only.
  const { written } = encoder.encodeInto(caption, scratch.subarray(0, most));
  return { bytes: scratch, written };
}

function tokensOf(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / bytesPerToken));
}
