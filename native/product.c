/*
 * The inner loops of products: tiles of ROWS by COLUMNS numbers that are summed in registers. Compiled once for each level of
 * x86-64, products and sums contracted where the level has an instruction for it. Every number is one sum in one order.
 */
#include "tile.h"

#include <string.h>

#if defined __AVX512F__
enum { LANES = 16, ROWS = 8 };
#elif defined __AVX2__
enum { LANES = 8, ROWS = 6 };
#else
enum { LANES = 4, ROWS = 4 };
#endif
enum { COLUMNS = 2 * LANES };
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

/** Numbers of a tile, two vectors to a row. */
typedef struct {
  Vector low[ROWS], high[ROWS];
} Sums;

/** Adds a column of `a`, its rows `stride` apart, times a row of `b`. */
static inline __attribute__((always_inline)) void add_outer(Sums *sums, const float *a, size_t stride, const float *b) {
  const Vector low = *(const Vector *)b, high = *(const Vector *)(b + LANES);
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; row++) {
    const float factor = a[row * stride];
    sums->low[row] += factor * low;
    sums->high[row] += factor * high;
  }
}

/** Writes the tile's first rows and columns. */
static inline __attribute__((always_inline)) void store(const Sums *sums, float *out, size_t stride, size_t rows,
                                                        size_t columns) {
  if (rows == ROWS && columns == COLUMNS) {
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
      *(Vector *)(out + row * stride) = sums->low[row];
      *(Vector *)(out + row * stride + LANES) = sums->high[row];
    }
    return;
  }
  float numbers[ROWS][COLUMNS];
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; row++) {
    *(Vector *)numbers[row] = sums->low[row];
    *(Vector *)(numbers[row] + LANES) = sums->high[row];
  }
  for (size_t row = 0; row < rows; row++) memcpy(out + row * stride, numbers[row], columns * sizeof **numbers);
}

/** Products that are summed before they are added to what was before: sums of sums are more exact. */
enum { PIECE = 256 };

/** Adds a tile's products from inner row `first` to `last`. */
static inline __attribute__((always_inline)) void add_piece(Sums *sums, size_t columns, const float *a, size_t a_stride,
                                                            const float *panel, size_t first, size_t last) {
  if (columns > LANES)
    for (size_t k = first; k < last; k++) add_outer(sums, a + k, a_stride, panel + k * COLUMNS);
  else
    for (size_t k = first; k < last; k++) {
      const Vector low = *(const Vector *)(panel + k * COLUMNS);
#pragma GCC unroll 8
      for (int row = 0; row < ROWS; row++) sums->low[row] += a[row * a_stride + k] * low;
    }
}

static void multiply(float *out, size_t out_stride, size_t rows, size_t columns, const float *a, size_t a_stride,
                     const float *panel, size_t inner, const float *start) {
  Sums sums;
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; row++) {
    sums.low[row] = *(const Vector *)start;
    sums.high[row] = *(const Vector *)(start + LANES);
  }
  if (inner <= PIECE) {
    add_piece(&sums, columns, a, a_stride, panel, 0, inner);
    return store(&sums, out, out_stride, rows, columns);
  }
  for (size_t first = 0; first < inner; first += PIECE) {
    Sums piece = {0};
    add_piece(&piece, columns, a, a_stride, panel, first, first + PIECE < inner ? first + PIECE : inner);
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
      sums.low[row] += piece.low[row];
      sums.high[row] += piece.high[row];
    }
  }
  store(&sums, out, out_stride, rows, columns);
}

static void add_products(float *out, size_t out_stride, const Stretch *stretches, size_t count, size_t a_stride,
                         size_t b_stride) {
  Sums sums;
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; row++) {
    sums.low[row] = *(const Vector *)(out + row * out_stride);
    sums.high[row] = *(const Vector *)(out + row * out_stride + LANES);
  }
  for (const Stretch *at = stretches; at < stretches + count; at++) {
    const float *a = at->a, *b = at->b;
    for (size_t k = 0; k < at->length; k++, a += a_stride, b += b_stride) add_outer(&sums, a, 1, b);
  }
  store(&sums, out, out_stride, ROWS, COLUMNS);
}

const Products PRODUCTS = {ROWS, COLUMNS, multiply, add_products};
