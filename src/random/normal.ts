/**
 * The Box-Muller transform (Box and Muller 1958) in float64 with nothing but additions, multiplications, divisions and
 * square roots, which IEEE 754 rounds alike everywhere. `Math.log`, `Math.sin` and `Math.cos` are left to the engine by
 * ECMAScript, so a video's noise would differ in its last bits between engines.
 *
 * The polynomials are those of FreeBSD's msun (`e_log.c`, `k_sin.c`, `k_cos.c`): errors below 2^-57.
 */

/** Coefficients of ln((1 + s)/(1 - s))/s in powers of s^2. */
export const logarithmTerms = [
  2, 0.6666666666666735, 0.3999999999940942, 0.2857142874366239, 0.22222198432149784, 0.1818357216161805,
  0.15313837699209373, 0.14798198605116586,
] as const;
/** Coefficients of (sin(x) - x)/x^3 in powers of x^2. */
export const sineTerms = [
  -0.16666666666666632, 0.00833333333332249, -0.0001984126982985795, 2.7557313707070068e-6,
  -2.5050760253406863e-8, 1.58969099521155e-10,
] as const;
/** Coefficients of (cos(x) - 1 + x^2/2)/x^4 in powers of x^2. */
export const cosineTerms = [
  0.0416666666666666, -0.001388888888887411, 2.480158728947673e-5, -2.7557314351390663e-7,
  2.087572321298175e-9, -1.1359647557788195e-11,
] as const;
/** What one unit of a signed 30-bit angle is in radians. */
export const angleUnit = Math.PI / 2 ** 31;

const [l0, l1, l2, l3, l4, l5, l6, l7] = logarithmTerms;
const [s0, s1, s2, s3, s4, s5] = sineTerms;
const [c0, c1, c2, c3, c4, c5] = cosineTerms;

// Exponents -1 to 31 of a 32-bit word plus a half; entry e + 1 is 2^-e.
const inversePowers = Float64Array.from({ length: 33 }, (_, i) => 2 ** (1 - i));

/**
 * Turns the first `count` (an even number) of uniform 32-bit `words` into as many standard normals.
 *
 * Words `(2j, 2j + 1)` make normals `2j` and `2j + 1`: `r cos(a)` and `r sin(a)` with `r = sqrt(-2 ln((w + 1/2) / 2^32))`
 * of the first word and `a` the second word as a fraction of a turn.
 */
export function boxMuller(words: Uint32Array, out: Float32Array, count: number): void {
  for (let j = 0; j < count; j += 2) {
    const w0 = words[j] ?? 0;
    const w1 = words[j + 1] ?? 0;

    // (w0 + 1/2) = 2^e m with m in [1, 2]; ln by the series in s = (m - 1)/(m + 1), m moved to [1/sqrt 2, sqrt 2].
    let e = 31 - Math.clz32(w0);
    let m = (w0 + 0.5) * (inversePowers[e + 1] ?? 0);
    if (m > Math.SQRT2) {
      m *= 0.5;
      e++;
    }
    const s = (m - 1) / (m + 1);
    const z = s * s;
    const lnM = s * (l0 + z * (l1 + z * (l2 + z * (l3 + z * (l4 + z * (l5 + z * (l6 + z * l7)))))));
    const radius = Math.sqrt(-2 * ((e - 32) * Math.LN2 + lnM));

    // The angle is a quarter turn (the top two bits, rounded to nearest) plus a remainder in [-pi/4, pi/4).
    const quarter = (w1 + 0x2000_0000) >>> 30;
    const x = ((w1 << 2) >> 2) * angleUnit;
    const y = x * x;
    const sine = x + x * y * (s0 + y * (s1 + y * (s2 + y * (s3 + y * (s4 + y * s5)))));
    const cosine = 1 - 0.5 * y + y * y * (c0 + y * (c1 + y * (c2 + y * (c3 + y * (c4 + y * c5)))));

    const swapped = (quarter & 1) === 1;
    const c = swapped ? -sine : cosine;
    const d = swapped ? cosine : sine;
    const signed = quarter < 2 ? radius : -radius;
    out[j] = signed * c;
    out[j + 1] = signed * d;
  }
}
