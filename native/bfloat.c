/*
 * The inner loops of products whose operands are rounded to bfloat16, to the nearest, ties to even, for processors that
 * multiply pairs of such numbers: two products and sums in a lane, in float32. Subnormal numbers count as 0 there. Every
 * number is one sum in one order.
 */
#include "tile.h"

#include <immintrin.h>

enum { LANES = 16, ROWS = 8, COLUMNS = 2 * LANES };

/** Numbers of a tile, two vectors to a row. */
typedef struct {
  __m512 low[ROWS], high[ROWS];
} Sums;

/** Up to 16 numbers, zeros behind them. */
static inline __m512 some_of(const float *from, size_t count) {
  return count >= LANES ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}

static void write_rows(Pair *out, size_t out_stride, const float *in, size_t in_stride, size_t rows, size_t columns) {
  for (size_t row = 0; row < rows; row++, out += out_stride, in += in_stride) {
    size_t column = 0;
    for (; column + 2 * LANES <= columns; column += 2 * LANES) {
      const __m512 first = _mm512_loadu_ps(in + column), second = _mm512_loadu_ps(in + column + LANES);
      _mm512_storeu_si512(out + column / 2, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
    if (column == columns) continue;
    const size_t left = columns - column;
    const __m512 first = some_of(in + column, left);
    const __m512 second = left > LANES ? some_of(in + column + LANES, left - LANES) : _mm512_setzero_ps();
    _mm512_storeu_si512(out + column / 2, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  }
}

/** The pairs of two rows' numbers; `places` puts neighbours beside each other. */
static inline __m512i pairs_of(__m512 first, __m512 second, __m512i places) {
  return _mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

static void write_panels(Pair *out, size_t panel, const float *in, size_t in_stride, size_t rows, size_t columns) {
  short order[2 * LANES];
  for (short i = 0; i < LANES; i++) order[2 * i] = i, order[2 * i + 1] = i + LANES;
  const __m512i places = _mm512_loadu_si512(order);
  for (size_t row = 0; row < rows; row += 2, out += COLUMNS, in += 2 * in_stride) {
    const int is_alone = row + 1 == rows;
    for (size_t column = 0; column < columns; column += LANES) {
      const __m512 first = some_of(in + column, columns - column);
      const __m512 second = is_alone ? _mm512_setzero_ps() : some_of(in + in_stride + column, columns - column);
      Pair *to = out + column / COLUMNS * panel + column % COLUMNS;
      _mm512_storeu_si512(to, pairs_of(first, second, places));
      if (column % COLUMNS == 0 && columns - column <= LANES) _mm512_storeu_si512(to + LANES, _mm512_setzero_si512());
    }
  }
}

/** Adds the products of `pairs` columns of `a`, `step` apart, its rows `stride` apart, and rows of a panel. */
static inline __attribute__((always_inline)) void add_pairs(Sums *sums, const Pair *a, size_t stride, size_t step,
                                                            const Pair *panel, size_t pairs) {
  for (size_t k = 0; k < pairs; k++, a += step, panel += COLUMNS) {
    const __m512bh low = (__m512bh)_mm512_loadu_si512(panel), high = (__m512bh)_mm512_loadu_si512(panel + LANES);
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
      const __m512bh factor = (__m512bh)_mm512_set1_epi32((int)a[row * stride]);
      sums->low[row] = _mm512_dpbf16_ps(sums->low[row], factor, low);
      sums->high[row] = _mm512_dpbf16_ps(sums->high[row], factor, high);
    }
  }
}

/** The first columns of a vector of which `first` are in front of it. */
static inline __mmask16 mask_of(size_t columns, size_t first) {
  if (columns >= first + LANES) return 0xffff;
  return columns <= first ? 0 : (__mmask16)((1u << (columns - first)) - 1);
}

static void multiply(float *out, size_t out_stride, size_t rows, size_t columns, const Pair *a, size_t a_stride,
                     const Pair *panel, size_t pairs, const float *start) {
  Sums sums;
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; row++) {
    sums.low[row] = _mm512_loadu_ps(start);
    sums.high[row] = _mm512_loadu_ps(start + LANES);
  }
  add_pairs(&sums, a, a_stride, 1, panel, pairs);
  const __mmask16 low = mask_of(columns, 0), high = mask_of(columns, LANES);
#pragma GCC unroll 8
  for (size_t row = 0; row < ROWS; row++) {
    if (row == rows) return;
    _mm512_mask_storeu_ps(out + row * out_stride, low, sums.low[row]);
    _mm512_mask_storeu_ps(out + row * out_stride + LANES, high, sums.high[row]);
  }
}

static void add_products(float *sums, size_t stride, const Pair *a, const Pair *b, size_t pairs) {
  Sums added = {0};
  add_pairs(&added, a, 1, COLUMNS, b, pairs);
#pragma GCC unroll 8
  for (size_t row = 0; row < ROWS; row++) {
    float *to = sums + row * stride;
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), added.low[row]));
    _mm512_storeu_ps(to + LANES, _mm512_add_ps(_mm512_loadu_ps(to + LANES), added.high[row]));
  }
}

const RoundedProducts rounded_products = {ROWS, COLUMNS, write_rows, write_panels, multiply, add_products};
