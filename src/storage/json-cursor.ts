/**
 * Reads JSON of a known form from left to right without building a tree.
 *
 * `JSON.parse` keeps the last of two equal keys silently, and turns a few megabytes of `[[],[],…` into gigabytes of
 * objects. Here the caller asks for what its format has at each place, sees every key, and anything else is an error.
 */
export class JsonCursor {
  readonly #text: string;
  readonly #fail: (problem: string) => never;
  #at = 0;

  /** A cursor at the start of `text`. `fail` receives what is wrong and where, and throws the caller's error. */
  constructor(text: string, fail: (problem: string) => never) {
    this.#text = text;
    this.#fail = fail;
  }

  /** Reads an object, calling `visit` for each key (decoded) in order; `visit` must read the value. */
  object(visit: (key: string) => void): void {
    this.#expect('{');
    if (this.#take('}')) return;
    do {
      const key = this.string();
      this.#expect(':');
      visit(key);
    } while (this.#take(','));
    this.#expect('}');
  }

  /** Reads an array of at most `limit` non-negative integers. */
  integers(limit: number): number[] {
    this.#expect('[');
    const values: number[] = [];
    if (this.#take(']')) return values;
    do {
      if (values.length === limit) this.#problem(`more than ${limit} numbers in a list`);
      values.push(this.#integer());
    } while (this.#take(','));
    this.#expect(']');
    return values;
  }

  /** Reads a string and decodes its escapes. */
  string(): string {
    this.#expect('"');
    const start = this.#at;
    let plain = true;
    for (;;) {
      // NaN, past the end, fails every comparison but the last.
      const code = this.#text.charCodeAt(this.#at);
      if (code === 0x22) break;
      if (code === 0x5c) this.#at++;
      if (code === 0x5c || code < 0x20) plain = false;
      if (Number.isNaN(code)) this.#problem('a string does not end');
      this.#at++;
    }
    const raw = this.#text.slice(start, this.#at++);
    return plain ? raw : this.#unescape(raw);
  }

  /** Requires that nothing but white space follows. */
  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#problem(`unexpected ${this.#next()}`);
  }

  #unescape(raw: string): string {
    try {
      const value: unknown = JSON.parse(`"${raw}"`);
      // Half a surrogate pair cannot be written in UTF-8, so two such names could not be told apart again.
      if (typeof value === 'string' && value.isWellFormed()) return value;
    } catch {
      // A control character or an unknown escape; reported like the rest.
    }
    return this.#problem('a string is not valid JSON');
  }

  #integer(): number {
    this.#skipSpace();
    const start = this.#at;
    while (isDigit(this.#text.charCodeAt(this.#at))) this.#at++;
    const digits = this.#text.slice(start, this.#at);
    if (digits === '') this.#problem(`expected a non-negative integer, found ${this.#next()}`);
    const value = Number(digits);
    const plain = String(value) === digits && Number.isSafeInteger(value);
    if (!plain) this.#problem(`${shorten(digits)} is not an integer below 2^53`);
    return value;
  }

  #expect(char: string): void {
    if (!this.#take(char)) this.#problem(`expected ${char}, found ${this.#next()}`);
  }

  /** Skips white space, then `char` if it is there; says whether it was. */
  #take(char: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== char) return false;
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #next(): string {
    const char = this.#text[this.#at];
    return char === undefined ? 'the end' : JSON.stringify(char);
  }

  #problem(what: string): never {
    return this.#fail(`${what}, at character ${this.#at}`);
  }
}

/** `text` in at most 80 characters, for error messages about input of any length. */
export function shorten(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}
