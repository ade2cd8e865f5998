import { hex, mixRgb, multiplyRgb, oklabDistance, type Rgb } from './colour.ts';
import type { Background, Colour, Place, Time, Weather } from './scene.ts';

/** The colours of objects in white light, far enough apart to be named by eye under every sky below. */
export const objectColours: { readonly [C in Colour]: Rgb } = {
  red: hex('#e3302c'),
  orange: hex('#fa8519'),
  yellow: hex('#fbd81f'),
  green: hex('#1f9e4a'),
  cyan: hex('#12cdd0'),
  blue: hex('#2b57e6'),
  purple: hex('#8b3ccb'),
  pink: hex('#fb83b9'),
  white: hex('#fcfbf8'),
  black: hex('#2a2a31'),
};

/** What is in the sky: the sun or the moon. Positions are fractions of half the frame, the sky's height counted from the horizon. */
export interface Luminary {
  readonly colour: Rgb;
  readonly glow: Rgb;
  /** How far the glow lights the sky, in stage units, and how strongly, from 0 to 1. */
  readonly glowReach: number;
  readonly glowStrength: number;
  /** Radius in stage units; 0 hides the disc. */
  readonly radius: number;
  /** 0 to 1 of the half width away from the middle. */
  readonly side: number;
  /** 0 (horizon) to 1 (top of the frame). */
  readonly height: number;
}

/** How the light falls on objects. */
export interface Lighting {
  /** Towards the light, before its side is chosen: x away from the middle, y down, z towards the viewer. */
  readonly direction: Rgb;
  /** Colour of lit sides; 255 leaves an object's colour as it is. */
  readonly light: Rgb;
  /** Colour of shaded sides. */
  readonly ambient: Rgb;
  /** Colour and strength (0 to 1) of cast shadows. */
  readonly shadow: Rgb;
  readonly shadowStrength: number;
  /** Length of cast shadows along the ground to the side, per unit of height. */
  readonly shadowSlant: number;
  /** Brightness of the thin edge light that sets objects off from the background, 0 to 1. */
  readonly rim: number;
}

/** Everything a background is painted with. */
export interface Palette {
  readonly zenith: Rgb;
  readonly sky: Rgb;
  readonly skyline: Rgb;
  readonly cloud: Rgb;
  readonly cloudShade: Rgb;
  /** Strength of clouds and of stars, 0 to 1. */
  readonly clouds: number;
  readonly stars: number;
  readonly luminary: Luminary;
  readonly lighting: Lighting;
  /** Two rows of hills, dunes, islands or houses. */
  readonly far: Rgb;
  readonly near: Rgb;
  readonly groundFar: Rgb;
  readonly groundNear: Rgb;
  /** Flowers, foam, cacti, lit windows, craters. */
  readonly accent: Rgb;
}

type Land = Pick<Palette, 'far' | 'near' | 'groundFar' | 'groundNear' | 'accent'>;
type Sky = Omit<Palette, keyof Land>;

const land = (far: string, near: string, groundFar: string, groundNear: string, accent: string): Land => ({
  far: hex(far),
  near: hex(near),
  groundFar: hex(groundFar),
  groundNear: hex(groundNear),
  accent: hex(accent),
});

const skies: { readonly [T in Time]: Sky } = {
  dawn: {
    zenith: hex('#86a9dc'),
    sky: hex('#e9c3d3'),
    skyline: hex('#ffe2b0'),
    cloud: hex('#fff0e6'),
    cloudShade: hex('#e7b6c4'),
    clouds: 0.8,
    stars: 0,
    luminary: {
      colour: hex('#fff6d8'),
      glow: hex('#ffe9b8'),
      glowReach: 0.85,
      glowStrength: 0.75,
      radius: 0.13,
      side: 0.52,
      height: 0.2,
    },
    lighting: {
      direction: [0.72, -0.5, 0.55],
      light: hex('#fff8ee'),
      ambient: hex('#b9b0cc'),
      shadow: hex('#5a5478'),
      shadowStrength: 0.42,
      shadowSlant: 0.75,
      rim: 0.3,
    },
  },
  day: {
    zenith: hex('#3c8fe6'),
    sky: hex('#74bdf5'),
    skyline: hex('#d3eefb'),
    cloud: hex('#ffffff'),
    cloudShade: hex('#cfe2f2'),
    clouds: 1,
    stars: 0,
    luminary: {
      colour: hex('#fffbe0'),
      glow: hex('#fff8d0'),
      glowReach: 0.5,
      glowStrength: 0.6,
      radius: 0.11,
      side: 0.62,
      height: 0.8,
    },
    lighting: {
      direction: [0.45, -0.72, 0.55],
      light: hex('#ffffff'),
      ambient: hex('#a9b0c8'),
      shadow: hex('#1f3348'),
      shadowStrength: 0.42,
      shadowSlant: 0.35,
      rim: 0.12,
    },
  },
  sunset: {
    zenith: hex('#4a3a86'),
    sky: hex('#d9587c'),
    skyline: hex('#ffb25a'),
    cloud: hex('#ff9e7d'),
    cloudShade: hex('#a4487c'),
    clouds: 0.85,
    stars: 0,
    luminary: {
      colour: hex('#fff0b0'),
      glow: hex('#ffc868'),
      glowReach: 1,
      glowStrength: 0.8,
      radius: 0.19,
      side: 0.3,
      height: 0.1,
    },
    lighting: {
      direction: [0.7, -0.42, 0.6],
      light: hex('#fff3e2'),
      ambient: hex('#b09cba'),
      shadow: hex('#2c1638'),
      shadowStrength: 0.5,
      shadowSlant: 0.8,
      rim: 0.35,
    },
  },
  night: {
    zenith: hex('#0c1236'),
    sky: hex('#1a2760'),
    skyline: hex('#3b5596'),
    cloud: hex('#46598f'),
    cloudShade: hex('#26356a'),
    clouds: 0.45,
    stars: 1,
    luminary: {
      colour: hex('#f7f3dc'),
      glow: hex('#9fb8ff'),
      glowReach: 0.5,
      glowStrength: 0.4,
      radius: 0.13,
      side: 0.55,
      height: 0.74,
    },
    lighting: {
      direction: [0.5, -0.66, 0.6],
      light: hex('#f2f3ff'),
      ambient: hex('#9aa0c4'),
      shadow: hex('#050817'),
      shadowStrength: 0.5,
      shadowSlant: 0.4,
      rim: 0.45,
    },
  },
};

const space: Sky = {
  ...skies.night,
  zenith: hex('#04050f'),
  sky: hex('#0a0b20'),
  skyline: hex('#1b1740'),
  clouds: 0,
  stars: 1.25,
  luminary: { ...skies.night.luminary, radius: 0, glowStrength: 0, side: 0.8, height: 0.9 },
  lighting: {
    direction: [0.55, -0.6, 0.6],
    light: hex('#ffffff'),
    ambient: hex('#9495b0'),
    shadow: hex('#05050c'),
    shadowStrength: 0.62,
    shadowSlant: 0.55,
    rim: 0.4,
  },
};

// Colours in the order far hills, near hills, ground at the horizon, ground in front, accent.
const lands: { readonly [P in Exclude<Place, 'space'>]: { readonly [T in Time]: Land } } = {
  meadow: {
    dawn: land('#a9b3cc', '#8fae93', '#b9cf86', '#6ea352', '#fff3c4'),
    day: land('#8cc3d6', '#62b377', '#a6dc5e', '#55ab40', '#ffffff'),
    sunset: land('#8f5285', '#6b5a52', '#a8a848', '#568a40', '#ffe28a'),
    night: land('#283a74', '#204a58', '#2f6a5a', '#1d4a3e', '#a9c6e8'),
  },
  sea: {
    dawn: land('#b7b4cf', '#a3a3c0', '#f6d2b4', '#6f9fc6', '#fff4e4'),
    day: land('#93c8dd', '#5fa88f', '#62c6e0', '#1279bd', '#ffffff'),
    sunset: land('#96487c', '#6d3468', '#ffa860', '#4c3b7c', '#ffdca0'),
    night: land('#26376e', '#1b2856', '#34549a', '#0f1f4c', '#b8cdfa'),
  },
  desert: {
    dawn: land('#c9a9b4', '#dcae92', '#f4d5ae', '#d6a06f', '#6f8a63'),
    day: land('#e6b57c', '#efc884', '#f9e0a4', '#e2ab5c', '#4f9454'),
    sunset: land('#8e3f63', '#bb553f', '#f39a52', '#b0503c', '#4a3f45'),
    night: land('#343a72', '#44446f', '#7b6c86', '#564a66', '#263a48'),
  },
  city: {
    dawn: land('#c3b2c9', '#9f97b8', '#b9adb4', '#87829a', '#ffe6a8'),
    day: land('#b3cbe0', '#8ea6c2', '#c3c8ce', '#8d949f', '#e8f4ff'),
    sunset: land('#9c4a7f', '#57386f', '#94667a', '#584865', '#ffd068'),
    night: land('#2a3b78', '#18224f', '#434b74', '#262c4c', '#ffd978'),
  },
};
const moonscape: Land = land('#4d4a66', '#6d6a80', '#a5a3b2', '#74737f', '#dcdce6');

const overcast: { readonly [T in Time]: Rgb } = {
  dawn: hex('#b9b3bd'),
  day: hex('#9fb0bf'),
  sunset: hex('#8f6a7c'),
  night: hex('#26325c'),
};

/** The palette of a background. Rain and snow draw a veil over the sky and soften light and shadow. */
export function paletteOf({ place, time, weather }: Background): Palette {
  if (place === 'space') return { ...space, ...moonscape };
  const palette = { ...skies[time], ...lands[place][time] };
  return weather === 'clear' ? palette : veil(palette, weather, time);
}

function veil(palette: Palette, weather: Exclude<Weather, 'clear'>, time: Time): Palette {
  const grey = overcast[time];
  const amount = weather === 'rain' ? 0.5 : 0.35;
  const soft = (colour: Rgb) => mixRgb(colour, grey, amount);
  const white: Rgb = time === 'night' ? hex('#8fa3d0') : hex('#f2f4f8');
  const powder = (colour: Rgb) => (weather === 'snow' ? mixRgb(colour, white, 0.3) : colour);
  return {
    ...palette,
    zenith: soft(palette.zenith),
    sky: soft(palette.sky),
    skyline: mixRgb(palette.skyline, grey, 0.6 * amount),
    cloud: mixRgb(palette.cloud, grey, 0.5),
    cloudShade: soft(palette.cloudShade),
    stars: 0.3 * palette.stars,
    luminary: {
      ...palette.luminary,
      colour: mixRgb(palette.luminary.colour, grey, amount),
      glowStrength: 0.6 * palette.luminary.glowStrength,
    },
    lighting: { ...palette.lighting, shadowStrength: 0.65 * palette.lighting.shadowStrength },
    far: mixRgb(soft(palette.far), white, weather === 'snow' ? 0.3 : 0),
    near: powder(mixRgb(palette.near, grey, 0.5 * amount)),
    groundFar: powder(mixRgb(palette.groundFar, grey, 0.4 * amount)),
    groundNear: powder(palette.groundNear),
  };
}

/** Least distance, in Oklab, of an object's colour from what is most likely behind it. */
const leastContrast = 0.08;

/** Whether an object of a colour can be told from a background by its colour alone. */
export function nameable(colour: Colour, background: Background): boolean {
  const palette = paletteOf(background);
  const { ambient, light } = palette.lighting;
  const seen = multiplyRgb(objectColours[colour], mixRgb(ambient, light, 0.7));
  const middle = mixRgb(palette.groundFar, palette.groundNear, 0.5);
  return [palette.groundNear, middle, palette.sky].every(
    (behind) => oklabDistance(seen, behind) >= leastContrast,
  );
}
