import { maxPromptBytes } from '../pipeline/velocity-field.ts';
import { chatEndpointOf, expandByChat } from '../prompt/chat-expander.ts';
import { expandForWorlds } from '../prompt/world-expander.ts';
import type { Terminal } from './command.ts';
import { note } from './make-video.ts';

/**
 * The prompt in the detailed form, by the chat endpoint of the environment where one is named, else by the rules of the
 * worlds; told to the user.
 * @param planOnly asks no endpoint.
 * @throws UserError when the endpoint fails.
 */
export async function expandedPrompt(
  prompt: string,
  seed: number,
  planOnly: boolean,
  terminal: Terminal,
): Promise<string> {
  const endpoint = chatEndpointOf(process.env);
  if (endpoint !== undefined && planOnly) {
    note(terminal, `The prompt would be expanded by ${endpoint.model} of ${endpoint.url}`);
    return prompt;
  }
  const expanded =
    endpoint === undefined
      ? expandForWorlds(prompt, seed)
      : await expandByChat(prompt, endpoint, { maxBytes: maxPromptBytes, signal: terminal.signal });
  note(
    terminal,
    expanded === undefined
      ? 'The prompt is used as it is: it names nothing of the worlds, or contradicts itself'
      : `Expanded: ${expanded}`,
  );
  return expanded ?? prompt;
}
