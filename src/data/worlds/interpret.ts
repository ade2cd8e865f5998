import { type RelationKind, relationKinds, type Side } from './ground-truth.ts';
import {
  colourWords,
  finishWords,
  numberWords,
  paceWords,
  placePhrases,
  pluralOf,
  shapeNouns,
  sizeWords,
  timePhrases,
  verbs,
  weatherPhrases,
} from './lexicon.ts';
import type {
  Camera,
  Colour,
  Direction,
  Finish,
  MotionKind,
  Pace,
  Place,
  Shape,
  Size,
  Time,
  Turn,
  Weather,
} from './scene.ts';

/** What a text says of an object, or of several alike; what it leaves open is absent. */
export interface ObjectSketch {
  readonly shape: Shape;
  readonly count: number;
  readonly colour?: Colour;
  readonly size?: Size;
  readonly finish?: Finish;
  readonly motion?: MotionKind;
  /** Whether it moves or hangs in the air rather than on the ground. */
  readonly airborne?: boolean;
  readonly direction?: Direction;
  readonly turn?: Turn;
  readonly pace?: Pace;
  /** Index in {@link Sketch.objects} of whom it follows or goes round. */
  readonly target?: number;
  readonly side?: Side;
  readonly relation?: { readonly kind: RelationKind; readonly to: number };
}

/** What a text says of a scene. */
export interface Sketch {
  readonly objects: readonly ObjectSketch[];
  readonly place?: Place;
  readonly time?: Time;
  readonly weather?: Weather;
  readonly camera?: Camera;
}

type Meaning =
  | { readonly type: 'shape'; readonly shape: Shape; readonly plural: boolean }
  | { readonly type: 'article'; readonly definite: boolean }
  | { readonly type: 'number'; readonly count: number }
  | { readonly type: 'attribute'; readonly set: Pick<Draft, 'colour' | 'size' | 'finish'> }
  /** Said after the noun that it belongs to. */
  | { readonly type: 'suffix'; readonly set: Pick<Draft, 'finish'> }
  /** Said of whoever moves. */
  | { readonly type: 'adverb'; readonly set: Pick<Draft, 'pace' | 'turn' | 'side'> }
  | { readonly type: 'verb'; readonly set: Pick<Draft, 'motion' | 'airborne'>; readonly targeted: boolean }
  | { readonly type: 'direction'; readonly direction: Direction }
  | { readonly type: 'relation'; readonly kind: RelationKind }
  | { readonly type: 'setting'; readonly set: SettingDraft }
  | { readonly type: 'camera' }
  | { readonly type: 'film'; readonly camera: Camera }
  /** A new clause begins: whoever was awaited does not come. */
  | { readonly type: 'clause' }
  /** Ends a noun phrase and says nothing. */
  | { readonly type: 'filler' };

type Draft = { -readonly [K in keyof ObjectSketch]?: ObjectSketch[K] };
type SettingDraft = { place?: Place; time?: Time; weather?: Weather };

const longestText = 4000;
const longestPhrase = 8;
const mostObjects = 8;

/**
 * Reads from a text what it says in the words of captions: the way back from `describe`. Words it does not know are
 * passed over, so it also gets the gist of what people type. At most 4,000 characters and 8 objects are read.
 */
export function interpret(text: string): Sketch {
  const reader = new Reader();
  for (const sentence of text
    .slice(0, longestText)
    .toLowerCase()
    .split(/[.;!?]/)) {
    const words = sentence.match(/[a-z]+(?:-[a-z]+)*|\d+/g) ?? [];
    for (let i = 0; i < words.length; ) {
      let length = Math.min(longestPhrase, words.length - i);
      while (length > 1 && !meanings.has(words.slice(i, i + length).join(' '))) length--;
      const meaning = meanings.get(words.slice(i, i + length).join(' '));
      if (meaning !== undefined) reader.read(meaning);
      i += length;
    }
    reader.endSentence();
  }
  return reader.sketch();
}

/** Follows a text phrase by phrase: attributes gather until a noun, then verbs and what follows belong to that noun. */
class Reader {
  readonly #objects: Draft[] = [];
  readonly #setting: SettingDraft = {};
  #camera: Camera | undefined;
  /** The camera is the subject. */
  #filming = false;
  /** What was said since an article, before its noun. */
  #phrase: (Draft & { definite?: boolean }) | undefined;
  #subject: Draft | undefined;
  #lastNamed: Draft | undefined;
  /** The next noun is what the subject lies to, or follows. */
  #relation: RelationKind | undefined;
  #awaitsTarget = false;

  read(meaning: Meaning): void {
    switch (meaning.type) {
      case 'article':
        this.#phrase = { definite: meaning.definite };
        return;
      case 'number':
        this.#phrase = { ...this.#phrase, count: meaning.count };
        return;
      case 'attribute':
        this.#phrase = { ...this.#phrase, ...meaning.set };
        return;
      case 'shape':
        this.#name(meaning.shape, meaning.plural);
        return;
      case 'suffix':
        if (this.#lastNamed !== undefined) Object.assign(this.#lastNamed, meaning.set);
        return;
      case 'adverb':
        this.#tell(meaning.set);
        return;
      case 'verb':
        if (this.#phrase !== undefined) Object.assign(this.#phrase, meaning.set);
        else this.#tell(meaning.set);
        this.#awaitsTarget = meaning.targeted;
        return;
      case 'direction':
        if (!this.#filming) this.#tell({ direction: meaning.direction });
        else if (this.#camera?.kind === 'pan') this.#camera = { kind: 'pan', direction: meaning.direction };
        return;
      case 'relation':
        this.#relation = meaning.kind;
        return;
      case 'setting':
        this.#phrase = undefined;
        Object.assign(this.#setting, meaning.set);
        return;
      case 'camera':
        this.#filming = true;
        this.#phrase = undefined;
        return;
      case 'film':
        if (this.#filming) this.#camera = meaning.camera;
        return;
      case 'clause':
        this.#awaitsTarget = false;
        this.#relation = undefined;
        this.#phrase = undefined;
        return;
      case 'filler':
        this.#phrase = undefined;
    }
  }

  endSentence(): void {
    this.read({ type: 'clause' });
    this.#filming = false;
  }

  sketch(): Sketch {
    const objects = this.#objects.map(({ shape = 'ball', count = 1, ...said }) => ({
      shape,
      count,
      ...said,
    }));
    return { objects, ...this.#setting, ...(this.#camera === undefined ? {} : { camera: this.#camera }) };
  }

  #tell(said: Draft): void {
    if (this.#subject !== undefined && !this.#filming) Object.assign(this.#subject, said);
  }

  #name(shape: Shape, plural: boolean): void {
    const { definite = false, ...said } = this.#phrase ?? {};
    this.#phrase = undefined;
    this.#filming = false;
    const alike = (object: Draft) =>
      object.shape === shape && (said.colour === undefined || object.colour === said.colour);
    const known = definite ? this.#objects.findIndex(alike) : -1;
    if (known < 0 && this.#objects.length >= mostObjects) return;
    const index = known < 0 ? this.#objects.length : known;
    if (known < 0) this.#objects.push({ shape, count: plural ? 2 : 1, ...said });
    const named = this.#objects[index];
    const other = this.#subject !== undefined && this.#subject !== named ? this.#subject : undefined;
    this.#lastNamed = named;
    if (other !== undefined && this.#relation !== undefined) {
      other.relation = { kind: this.#relation, to: index };
    } else if (other !== undefined && this.#awaitsTarget) {
      other.target = index;
    } else {
      this.#subject = named;
    }
    this.#relation = undefined;
    this.#awaitsTarget = false;
  }
}

function buildMeanings(): ReadonlyMap<string, Meaning> {
  const table = new Map<string, Meaning>();
  const add = (words: readonly string[], meaning: Meaning) => {
    for (const word of words) table.set(word, meaning);
  };
  const each = <K extends string>(
    lists: { readonly [_ in K]: readonly string[] },
    meaning: (key: K) => Meaning,
  ) => {
    for (const [key, words] of Object.entries(lists)) add(words as string[], meaning(key as K));
  };
  add(['a', 'an'], { type: 'article', definite: false });
  add(['the'], { type: 'article', definite: true });
  add(['and', 'while', 'as', 'then', 'but'], { type: 'clause' });
  add(fillers, { type: 'filler' });
  each(colourWords, (colour) => ({ type: 'attribute', set: { colour } }));
  each(sizeWords, (size) => ({ type: 'attribute', set: { size } }));
  each(finishWords, (finish) => ({ type: 'attribute', set: { finish } }));
  add(['with stripes'], { type: 'suffix', set: { finish: 'striped' } });
  each(shapeNouns, (shape) => ({ type: 'shape', shape, plural: false }));
  for (const [shape, nouns] of Object.entries(shapeNouns)) {
    add(nouns.map(pluralOf), { type: 'shape', shape: shape as Shape, plural: true });
  }
  for (const [count, word] of numberWords.entries()) {
    if (count > 0) add([word, String(count)], { type: 'number', count });
  }
  each(paceWords, (pace) => ({ type: 'adverb', set: { pace } }));
  add(['clockwise'], { type: 'adverb', set: { turn: 'clockwise' } });
  add(['counterclockwise', 'anticlockwise'], { type: 'adverb', set: { turn: 'counterclockwise' } });
  for (const direction of ['left', 'right'] as const) {
    const from = direction === 'right' ? 'left' : 'right';
    add([direction, `to the ${direction}`, `${direction}wards`, `from ${from} to ${direction}`], {
      type: 'direction',
      direction,
    });
    add([`on the ${direction}`, `on the ${direction} side`, `on the ${direction} side of the picture`], {
      type: 'adverb',
      set: { side: direction },
    });
    add([`to the ${direction} of`], { type: 'relation', kind: `${direction} of` });
  }
  add(['in the middle', 'in the centre', 'in the centre of the picture'], {
    type: 'adverb',
    set: { side: 'middle' },
  });
  for (const kind of relationKinds) add([kind], { type: 'relation', kind });
  for (const [word, forms] of Object.entries(verbs)) {
    const name = word as keyof typeof verbs;
    const targeted = name === 'orbit' || name === 'follow';
    const said = forms.flatMap(({ one, many, ing }) => [one, many, ing]);
    add(said, { type: 'verb', ...verbOf(name), targeted });
  }
  addSettings(add);
  addCamera(add);
  return table;
}

type Add = (words: readonly string[], meaning: Meaning) => void;

const fillers = [
  'up and down',
  'in place',
  'into the air',
  'into the sky',
  'in the air',
  'from the sky',
  'to the ground',
  'in size',
];

function verbOf(name: keyof typeof verbs): { readonly set: Pick<Draft, 'motion' | 'airborne'> } {
  switch (name) {
    case 'rest':
      return { set: { motion: 'still', airborne: false } };
    case 'hang':
      return { set: { motion: 'still', airborne: true } };
    case 'slide':
    case 'roll':
      return { set: { motion: 'slide', airborne: false } };
    case 'drift':
      return { set: { motion: 'slide', airborne: true } };
    case 'circle':
      return { set: { motion: 'orbit' } };
    default:
      return { set: { motion: name } };
  }
}

function addSettings(add: Add): void {
  const words: { readonly [P in Place]: readonly string[] } = {
    meadow: ['meadow', 'grass', 'field', 'lawn'],
    sea: ['sea', 'ocean', 'water'],
    desert: ['desert', 'sand', 'dunes'],
    city: ['city', 'street', 'skyline', 'town'],
    space: ['space', 'moon'],
  };
  for (const [place, { on, at }] of Object.entries(placePhrases)) {
    const set = { place: place as Place };
    add([...on, ...at, ...words[set.place]], { type: 'setting', set });
  }
  const moments: { readonly [T in Time]: readonly string[] } = {
    dawn: ['dawn', 'sunrise', 'daybreak', 'morning'],
    day: ['day', 'daylight', 'daytime', 'midday', 'noon', 'sunny'],
    sunset: ['sunset', 'dusk', 'evening'],
    night: ['night', 'moonlight', 'midnight', 'under the stars', 'starry'],
  };
  for (const [time, said] of Object.entries(timePhrases)) {
    const set = { time: time as Time };
    add([...said, ...moments[set.time]], { type: 'setting', set });
  }
  const skies: { readonly [W in Weather]: readonly string[] } = {
    clear: [],
    rain: ['rain', 'rains', 'rainy', 'raining'],
    snow: ['snow', 'snows', 'snowy', 'snowing'],
  };
  for (const [weather, said] of Object.entries(weatherPhrases)) {
    const set = { weather: weather as Weather };
    add([...said, ...skies[set.weather]], { type: 'setting', set });
  }
}

function addCamera(add: Add): void {
  add(['camera', 'view', 'shot'], { type: 'camera' });
  add(['pan', 'pans', 'panning'], { type: 'film', camera: { kind: 'pan', direction: 'right' } });
  for (const direction of ['in', 'out'] as const) {
    const camera: Camera = { kind: 'zoom', direction };
    add([`zoom ${direction}`, `zooms ${direction}`, `zooming ${direction}`], { type: 'film', camera });
  }
  add(['shake', 'shakes', 'shaking', 'shaky'], { type: 'film', camera: { kind: 'shake' } });
  add(['still', 'is still', 'stays still', 'does not move', 'static'], {
    type: 'film',
    camera: { kind: 'still' },
  });
}

const meanings = buildMeanings();
