import { UserError } from '../errors.ts';

/** Where in a file a value stands, for messages. */
export interface Place {
  readonly file: string;
  /** Such as `data.variants.0.width`; empty for the whole file. */
  readonly path: string;
}

/** The form of a value in a JSON file: checks it, and describes itself as JSON Schema. */
export interface Schema<T> {
  /** The value's JSON Schema. */
  readonly json: Readonly<Record<string, unknown>>;
  /** The value when an object leaves it out; without this it must be given. */
  readonly fallback?: { readonly value: T };
  /** @throws UserError, one line naming file, path and value, when the value is not of this form. */
  read(value: unknown, place: Place): T;
}

/** The schema that reads a `T`, for each entry of `T`. */
export type Fields<T> = { readonly [K in keyof T]-?: Schema<T[K]> };

/** A number within bounds, both included unless `above` is given. */
export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
  /** Exclusive lower bound. */
  readonly above?: number;
}

/** Any finite number within a range. */
export function number(range: NumberRange, description: string): Schema<number> {
  return numeric('number', 'a number', range, description, Number.isFinite);
}

/** A whole number within a range. */
export function integer(range: NumberRange, description: string): Schema<number> {
  return numeric('integer', 'a whole number', range, description, Number.isSafeInteger);
}

/** A text that is not empty. */
export function text(description: string): Schema<string> {
  return {
    json: { type: 'string', minLength: 1, description },
    read: (value, place) =>
      typeof value === 'string' && value !== '' ? value : refuse(place, value, 'must be a text'),
  };
}

/** One of a list of texts or numbers. */
export function choice<const T extends string | number>(
  options: readonly T[],
  description?: string,
): Schema<T> {
  return {
    json: { enum: options, ...(description === undefined ? {} : { description }) },
    read: (value, place) =>
      options.find((option) => option === value) ??
      refuse(place, value, `must be ${options.length === 1 ? '' : 'one of '}${options.join(', ')}`),
  };
}

/** A list of values of one form, with at least `least` of them. */
export function list<T>(item: Schema<T>, least: number, description: string): Schema<readonly T[]> {
  return {
    json: { type: 'array', items: item.json, minItems: least, description },
    read: (value, place) => {
      if (!Array.isArray(value) || value.length < least) {
        return refuse(place, value, `must be a list of at least ${least}`);
      }
      return value.map((entry, index) => item.read(entry, inside(place, String(index))));
    },
  };
}

/** An object with these entries and no others. `$schema` is allowed in the outermost one. */
export function object<T>(fields: Fields<T>, description?: string): Schema<T> {
  const known = Object.entries<Schema<unknown>>(fields);
  const required = known.filter(([, field]) => field.fallback === undefined).map(([name]) => name);
  return {
    json: {
      type: 'object',
      ...(description === undefined ? {} : { description }),
      properties: Object.fromEntries(known.map(([name, field]) => [name, field.json])),
      required,
      additionalProperties: false,
    },
    read: (value, place) => {
      const given = entriesOf(value, place);
      for (const name of Object.keys(given)) {
        const isSchema = place.path === '' && name === '$schema';
        if (!Object.hasOwn(fields as object, name) && !isSchema) {
          const names = known.map(([one]) => one).join(', ');
          refuse(inside(place, name), given[name], `is not known here; use ${names}`);
        }
      }
      return Object.fromEntries(
        known.map(([name, field]) => {
          const at = inside(place, name);
          if (Object.hasOwn(given, name)) return [name, field.read(given[name], at)];
          if (field.fallback === undefined) throw new UserError(`${subject(at)} is missing; give it a value`);
          return [name, field.fallback.value];
        }),
      ) as T;
    },
  };
}

/** An object of one of several forms, told apart by its entry `kind`. */
export function oneOf<T extends { readonly kind: string }>(
  forms: {
    readonly [K in T['kind']]: Schema<Extract<T, { readonly kind: K }>>;
  },
): Schema<T> {
  const byKind = forms as Readonly<Record<string, Schema<T>>>;
  return {
    json: { oneOf: Object.values(byKind).map(({ json }) => json) },
    read: (value, place) => {
      const kind = choice(Object.keys(byKind)).read(entriesOf(value, place).kind, inside(place, 'kind'));
      const form = byKind[kind];
      if (form === undefined) throw new Error(`schema: no form ${kind}`);
      return form.read(value, place);
    },
  };
}

/** An object with any entries, which another check reads. */
export function anyObject(description: string): Schema<Readonly<Record<string, unknown>>> {
  return {
    json: { type: 'object', description },
    read: (value, place) => entriesOf(value, place),
  };
}

/** The same, but may be left out for `value`. */
export function withDefault<T>(schema: Schema<T>, value: T): Schema<T> {
  return { ...schema, json: { ...schema.json, default: value }, fallback: { value } };
}

/** The same, but may be left out. */
export function optional<T>(schema: Schema<T>): Schema<T | undefined> {
  return { json: schema.json, read: schema.read, fallback: { value: undefined } };
}

/** Text of a value's place, for messages: `recipe.json: data.kind`. */
export function subject({ file, path }: Place): string {
  return path === '' ? file : `${file}: ${path}`;
}

function numeric(
  type: string,
  noun: string,
  { min, max, above }: NumberRange,
  description: string,
  isOfKind: (value: unknown) => boolean,
): Schema<number> {
  const bounds = [
    ...(above === undefined ? [] : [`above ${above}`]),
    ...(min === undefined ? [] : [`at least ${min}`]),
    ...(max === undefined ? [] : [`at most ${max}`]),
  ];
  const rule = `must be ${noun}${bounds.length === 0 ? '' : ` of ${bounds.join(' and ')}`}`;
  return {
    json: {
      type,
      ...(above === undefined ? {} : { exclusiveMinimum: above }),
      ...(min === undefined ? {} : { minimum: min }),
      ...(max === undefined ? {} : { maximum: max }),
      description,
    },
    read: (value, place) => {
      const fits =
        typeof value === 'number' &&
        isOfKind(value) &&
        value >= (min ?? Number.NEGATIVE_INFINITY) &&
        value <= (max ?? Number.POSITIVE_INFINITY) &&
        value > (above ?? Number.NEGATIVE_INFINITY);
      return fits ? value : refuse(place, value, rule);
    },
  };
}

function entriesOf(value: unknown, place: Place): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  return refuse(place, value, 'must be an object');
}

function inside({ file, path }: Place, name: string): Place {
  return { file, path: path === '' ? name : `${path}.${name}` };
}

function refuse(place: Place, value: unknown, rule: string): never {
  const shown = value === undefined ? 'missing' : (JSON.stringify(value) ?? String(value));
  const short = shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
  throw new UserError(`${subject(place)} ${short}: ${rule}`);
}
