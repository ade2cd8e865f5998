import { UserError } from '../errors.ts';

/** An OpenAI-compatible chat endpoint. */
export interface ChatEndpoint {
  /** Such as `https://api.openai.com/v1`; requests go to `/chat/completions` below it. */
  readonly url: string;
  /** Name of the model to ask. */
  readonly model: string;
  /** Sent as a bearer token; left out for servers that ask for none. */
  readonly key?: string;
}

/** Bounds of an expansion. */
export interface ChatOptions {
  /** Most bytes of UTF-8 that the result may have; longer answers end at their last whole sentence. */
  readonly maxBytes: number;
  /** Seconds until the endpoint is given up; default 60. */
  readonly seconds?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The endpoint that the environment names, as OpenAI's own clients read it: `OPENAI_BASE_URL` and `OPENAI_API_KEY`, and
 * `ZOETROPE_EXPAND_MODEL` for the model. Undefined unless both the URL and the model are set.
 */
export function chatEndpointOf(environment: NodeJS.ProcessEnv): ChatEndpoint | undefined {
  const { OPENAI_BASE_URL: url, OPENAI_API_KEY: key, ZOETROPE_EXPAND_MODEL: model } = environment;
  if (!url || !model) return undefined;
  return { url, model, ...(key && { key }) };
}

const instruction = `You rewrite a short prompt for a text-to-video model as one detailed caption in plain English.
Keep everything that the prompt says. Where it leaves something open, choose: for each object its size, surface and
colour, how it moves, in which direction and how fast, and where it is; the place, the time of day, the weather; what the
camera does. One to four short sentences, no list, no style words, no mention of the prompt. Answer with the caption alone.
Example. Prompt: a red ball bounces on grass at sunset. Caption: A small shiny red ball bounces slowly up and down on green
grass at sunset under a clear sky, in the middle. The camera stands still.`;

/** Answers beyond this are no captions. */
const mostAnswerBytes = 2 ** 20;

/**
 * Asks a chat endpoint for the detailed form of a prompt.
 * @throws UserError one line naming the endpoint: not reached in time, refused, or no caption in the answer.
 */
export async function expandByChat(
  prompt: string,
  endpoint: ChatEndpoint,
  { maxBytes, seconds = 60, signal }: ChatOptions,
): Promise<string> {
  const timeout = AbortSignal.timeout(1000 * seconds);
  const fail = (problem: string): never => {
    throw new UserError(`prompt expansion by ${endpoint.url}: ${problem}`);
  };
  try {
    const response = await fetch(`${endpoint.url.replace(/\/+$/, '')}/chat/completions`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(endpoint.key !== undefined && { authorization: `Bearer ${endpoint.key}` }),
      },
      body: JSON.stringify({
        model: endpoint.model,
        messages: [
          { role: 'system', content: instruction },
          { role: 'user', content: prompt },
        ],
      }),
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    });
    const text = await boundedText(response);
    if (!response.ok)
      fail(`answered ${response.status}; check OPENAI_BASE_URL, OPENAI_API_KEY and the model`);
    const caption = shortened(captionIn(text), maxBytes);
    return caption === '' ? fail('its answer holds no caption; use another model') : caption;
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof UserError) throw error;
    if (timeout.aborted) return fail(`no answer within ${seconds} s; try again, or leave --expand out`);
    return fail(`cannot be reached (${reasonOf(error)}); check OPENAI_BASE_URL`);
  }
}

/** The text of a response, given up when it is longer than any caption. */
async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let [text, bytes] = ['', 0];
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > mostAnswerBytes) return '';
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

/** The content of the first choice, on one line, or nothing. */
function captionIn(text: string): string {
  let content: unknown;
  try {
    const answer = JSON.parse(text) as { choices?: { message?: { content?: unknown } }[] } | null;
    content = answer?.choices?.[0]?.message?.content;
  } catch {
    return '';
  }
  return typeof content === 'string' ? content.replaceAll(/\s+/g, ' ').trim() : '';
}

/** At most `maxBytes` of a text, up to the end of a sentence where there is one, else of a word. */
function shortened(text: string, maxBytes: number): string {
  const bytes = new Uint8Array(maxBytes);
  const { read } = new TextEncoder().encodeInto(text, bytes);
  if (read === text.length) return text;
  const cut = text.slice(0, read);
  const end = Math.max(cut.lastIndexOf('. ') + 1, cut.lastIndexOf('! ') + 1, cut.lastIndexOf('? ') + 1);
  return end > 0 ? cut.slice(0, end) : cut.slice(0, cut.lastIndexOf(' ') + 1).trim();
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (cause instanceof Error) return 'code' in cause ? String(cause.code) : cause.message;
  return String(cause);
}
