/**
 * An error the user caused and can mend: a missing file, a bad flag, a damaged clip.
 *
 * The message is one line: subject, what is wrong with the value given, what to do. The command line prints it without
 * a stack trace and exits with 1; anything that is not a `UserError` is a bug of ours and keeps its stack.
 */
export class UserError extends Error {
  override name = 'UserError';
}
