/**
 * The Box-Muller transform (Box and Muller 1958) in float64 with nothing but additions, multiplications, divisions and
 * square roots, which IEEE 754 rounds alike everywhere. `Math.log`, `Math.sin` and `Math.cos` are left to the engine by
 * ECMAScript, so a video's noise would differ in its last bits between engines.
 *
 * The polynomials are those of FreeBSD's msun (`e_log.c`, `k_sin.c`, `k_cos.c`): errors below 2^-57.
 */

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
    const lnM =
      s *
      (2 +
        z *
          (0.6666666666666735 +
            z *
              (0.3999999999940942 +
                z *
                  (0.2857142874366239 +
                    z *
                      (0.22222198432149784 +
                        z * (0.1818357216161805 + z * (0.15313837699209373 + z * 0.14798198605116586)))))));
    const radius = Math.sqrt(-2 * ((e - 32) * Math.LN2 + lnM));

    // The angle is a quarter turn (the top two bits, rounded to nearest) plus a remainder in [-pi/4, pi/4).
    const quarter = (w1 + 0x2000_0000) >>> 30;
    const x = ((w1 << 2) >> 2) * (Math.PI / 2 ** 31);
    const y = x * x;
    const sine =
      x +
      x *
        y *
        (-0.16666666666666632 +
          y *
            (0.00833333333332249 +
              y *
                (-0.0001984126982985795 +
                  y * (2.7557313707070068e-6 + y * (-2.5050760253406863e-8 + y * 1.58969099521155e-10)))));
    const cosine =
      1 -
      0.5 * y +
      y *
        y *
        (0.0416666666666666 +
          y *
            (-0.001388888888887411 +
              y *
                (2.480158728947673e-5 +
                  y * (-2.7557314351390663e-7 + y * (2.087572321298175e-9 + y * -1.1359647557788195e-11)))));

    const swapped = (quarter & 1) === 1;
    const c = swapped ? -sine : cosine;
    const d = swapped ? cosine : sine;
    const signed = quarter < 2 ? radius : -radius;
    out[j] = signed * c;
    out[j + 1] = signed * d;
  }
}
