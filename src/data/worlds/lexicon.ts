import type { Colour, Finish, Pace, Place, Shape, Size, Time, Weather } from './scene.ts';

/** The words of captions. The first of each list is the plainest; all of a list mean the same. */

/** A verb in the three forms that captions need: it bounces, they bounce, bouncing. */
export interface Verb {
  readonly one: string;
  readonly many: string;
  readonly ing: string;
}

const verb = (one: string, many: string, ing: string): Verb => ({ one, many, ing });

/** Nouns of shapes, singular; all take a regular plural but those in {@link pluralOf}. */
export const shapeNouns: { readonly [S in Shape]: readonly string[] } = {
  ball: ['ball', 'ball', 'sphere'],
  cube: ['cube', 'cube', 'box'],
  cylinder: ['cylinder', 'drum'],
  cone: ['cone'],
  star: ['star'],
  heart: ['heart'],
  ring: ['ring', 'ring', 'hoop'],
  diamond: ['diamond', 'diamond', 'gem'],
  capsule: ['capsule', 'pill'],
  cross: ['cross', 'plus sign'],
};

/** The plural of a noun of {@link shapeNouns}. */
export function pluralOf(noun: string): string {
  return noun === 'box' || noun === 'cross' ? `${noun}es` : `${noun}s`;
}

/** Adjectives of colours. */
export const colourWords: { readonly [C in Colour]: readonly string[] } = {
  red: ['red'],
  orange: ['orange'],
  yellow: ['yellow'],
  green: ['green'],
  cyan: ['cyan', 'turquoise'],
  blue: ['blue'],
  purple: ['purple', 'purple', 'violet'],
  pink: ['pink'],
  white: ['white'],
  black: ['black'],
};

/** Adjectives of sizes. */
export const sizeWords: { readonly [S in Size]: readonly string[] } = {
  small: ['small', 'little', 'tiny'],
  medium: ['medium-sized', 'mid-sized'],
  large: ['large', 'big'],
};

/** Adjectives of finishes. */
export const finishWords: { readonly [F in Finish]: readonly string[] } = {
  plain: ['plain', 'matte'],
  striped: ['striped', 'stripy'],
  shiny: ['shiny', 'glossy'],
};

/** Numbers of alike objects. */
export const numberWords = ['no', 'one', 'two', 'three', 'four'] as const;

/** Adverbs of paces; a steady pace is seldom mentioned. */
export const paceWords: { readonly [P in Pace]: readonly string[] } = {
  slow: ['slowly', 'slowly', 'at a slow pace'],
  steady: ['steadily', 'at a steady pace'],
  fast: ['quickly', 'fast', 'rapidly'],
};

/** Where things are that touch the ground, and where things are at all. */
export const placePhrases: {
  readonly [P in Place]: { readonly on: readonly string[]; readonly at: readonly string[] };
} = {
  meadow: {
    on: ['on green grass', 'on the grass', 'in a meadow', 'in a grassy field'],
    at: ['in a meadow', 'in a green meadow', 'over green grass', 'in a grassy field'],
  },
  sea: {
    on: ['on the sea', 'on the water', 'on the ocean', 'at sea'],
    at: ['over the sea', 'at sea', 'above the water', 'over the ocean'],
  },
  desert: {
    on: ['on desert sand', 'in the desert', 'in a sandy desert', 'on the sand of a desert'],
    at: ['in the desert', 'in a sandy desert', 'above desert sand', 'among desert dunes'],
  },
  city: {
    on: ['on a city street', 'in a city street', 'in the city', 'on the street of a city'],
    at: ['in the city', 'above a city street', 'in front of a city skyline', 'in a city'],
  },
  space: {
    on: ['on the moon', 'on the moon in outer space', 'in space', 'on the ground of a moon in space'],
    at: ['in space', 'in outer space', 'above the moon in space', 'over the surface of the moon'],
  },
};

/** Times of day. */
export const timePhrases: { readonly [T in Time]: readonly string[] } = {
  dawn: ['at dawn', 'at sunrise', 'at daybreak', 'in the early morning'],
  day: ['in daylight', 'by day', 'in the daytime', 'at midday'],
  sunset: ['at sunset', 'at dusk', 'in the evening', 'as the sun sets'],
  night: ['at night', 'by night', 'in the moonlight', 'late at night'],
};

/** Weathers. */
export const weatherPhrases: { readonly [W in Weather]: readonly string[] } = {
  clear: ['in clear weather', 'under a clear sky'],
  rain: ['in the rain', 'while it rains', 'in falling rain', 'as rain falls'],
  snow: ['in the snow', 'while it snows', 'in falling snow', 'as snow falls'],
};

/** Verbs of motions. `rest`, `hang`, `roll` and `drift` are stillness and sliding on the ground and in the air. */
export const verbs = {
  rest: [
    verb('rests', 'rest', 'resting'),
    verb('stands still', 'stand still', 'standing still'),
    verb('lies still', 'lie still', 'lying still'),
  ],
  hang: [
    verb('hangs still in the air', 'hang still in the air', 'hanging still in the air'),
    verb('hovers motionless', 'hover motionless', 'hovering motionless'),
  ],
  slide: [
    verb('slides', 'slide', 'sliding'),
    verb('glides', 'glide', 'gliding'),
    verb('moves', 'move', 'moving'),
  ],
  roll: [verb('rolls', 'roll', 'rolling')],
  drift: [
    verb('glides through the air', 'glide through the air', 'gliding through the air'),
    verb('flies', 'fly', 'flying'),
  ],
  bounce: [verb('bounces', 'bounce', 'bouncing'), verb('hops', 'hop', 'hopping')],
  circle: [verb('circles', 'circle', 'circling'), verb('goes round', 'go round', 'going round')],
  orbit: [verb('orbits', 'orbit', 'orbiting'), verb('circles around', 'circle around', 'circling around')],
  grow: [verb('grows', 'grow', 'growing'), verb('swells', 'swell', 'swelling')],
  shrink: [verb('shrinks', 'shrink', 'shrinking'), verb('dwindles', 'dwindle', 'dwindling')],
  spin: [
    verb('spins', 'spin', 'spinning'),
    verb('rotates', 'rotate', 'rotating'),
    verb('turns', 'turn', 'turning'),
  ],
  fall: [verb('falls', 'fall', 'falling'), verb('drops', 'drop', 'dropping')],
  rise: [verb('rises', 'rise', 'rising'), verb('floats up', 'float up', 'floating up')],
  blink: [
    verb('blinks', 'blink', 'blinking'),
    verb('blinks on and off', 'blink on and off', 'blinking on and off'),
    verb('appears and disappears', 'appear and disappear', 'appearing and disappearing'),
  ],
  follow: [verb('follows', 'follow', 'following'), verb('trails', 'trail', 'trailing')],
} as const satisfies { readonly [name: string]: readonly Verb[] };
