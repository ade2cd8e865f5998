/*
 * The arithmetic, over a tile that fits the cache of a core. Compiled once for each level of x86-64, LEVEL being its name.
 * Loops are plain so that the compiler writes them as wide as the level allows, and without contracting products and sums,
 * so that results are those of separate operations.
 */
#include "tile.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float from_bits(int32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

INLINE int32_t bits_of(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/** a b + c, as exactly as the level has it: only inside of functions that are approximations anyway. */
INLINE float fused(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

/** e^x = 2^n e^r with n whole and |r| <= ln(2)/2; e^r as a polynomial (Cephes' expf). Within 2 units in the last place. */
INLINE float exponential(float x) {
  const float shift = 0x1.8p23f;
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const float shifted = fused(x, 1.44269504088896341f, shift);
  const float n = shifted - shift;
  const float r = fused(n, 2.12194440e-4f, fused(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = fused(p, r, 1.3981999507e-3f);
  p = fused(p, r, 8.3334519073e-3f);
  p = fused(p, r, 4.1665795894e-2f);
  p = fused(p, r, 1.6666665459e-1f);
  p = fused(p, r, 5.0000001201e-1f);
  p = fused(p * r, r, r) + 1.0f;
  /* 2^n in two factors: n goes beyond the exponents of normal numbers, where results are infinite or subnormal. */
  const int32_t whole = bits_of(shifted) - bits_of(shift);
  const int32_t half = whole >> 1;
  return p * from_bits((half + 127) << 23) * from_bits((whole - half + 127) << 23);
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/** Near zero x + x^3 P(x^2) (Cephes' tanhf), elsewhere by the exponential. */
INLINE float hyperbolic_tangent(float x) {
  const float size = fabsf(x);
  const float far = 1.0f - 2.0f / (exponential(2.0f * size) + 1.0f);
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = fused(p, z, 2.06390887954e-2f);
  p = fused(p, z, -5.37397155531e-2f);
  p = fused(p, z, 1.33314422036e-1f);
  p = fused(p, z, -3.33332819422e-1f);
  return size < 0.625f ? fused(p * z, x, x) : copysignf(far, x);
}

/** The approximation by tanh: x s(u), s the sigmoid, u = sqrt(8 / pi) (x + 0.044715 x^3). */
INLINE float gelu(float x) { return x * sigmoid(x * fused(x * x, 0.07135481282f, 1.5957691216f)); }

#define UNARY(name, expression) \
  INLINE void name(float *to, const float *from, size_t n) { \
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) { \
      const float x = from[i]; \
      to[i] = expression; \
    } \
  }
UNARY(copy, x)
UNARY(negate, -x)
UNARY(absolute, fabsf(x))
UNARY(exponentials, exponential(x))
UNARY(roots, sqrtf(x))
UNARY(tangents, hyperbolic_tangent(x))
UNARY(sigmoids, sigmoid(x))
UNARY(gelus, gelu(x))
UNARY(silus, x *sigmoid(x))

/** Which operands are single values. */
enum Form { BOTH, SINGLE_A, SINGLE_B };

#define BINARY(name, expression) \
  INLINE void name(float *to, const float *a, const float *b, size_t n, enum Form form) { \
    if (form == BOTH) { \
      _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) { \
        const float x = a[i], y = b[i]; \
        to[i] = expression; \
      } \
    } else if (form == SINGLE_B) { \
      const float y = *b; \
      _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) { \
        const float x = a[i]; \
        to[i] = expression; \
      } \
    } else { \
      const float x = *a; \
      _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) { \
        const float y = b[i]; \
        to[i] = expression; \
      } \
    } \
  }
BINARY(add, x + y)
BINARY(subtract, x - y)
BINARY(multiply, x *y)
BINARY(divide, x / y)
BINARY(larger, x > y || x != x ? x : y)
BINARY(smaller, x < y || x != x ? x : y)

#define TERNARY(name, expression) \
  INLINE void name##_loop(float *to, const float *a, const float *b, const float *c, size_t n, int all_b, int all_c) { \
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) { \
      const float x = a[i], y = b[all_b ? i : 0], z = c[all_c ? i : 0]; \
      to[i] = expression; \
    } \
  } \
  INLINE void name(float *to, const float *a, const float *b, const float *c, size_t n, int all_b, int all_c) { \
    const float y = *b, z = *c; \
    if (all_b && all_c) name##_loop(to, a, b, c, n, 1, 1); \
    else if (all_b) name##_loop(to, a, b, &z, n, 1, 0); \
    else if (all_c) name##_loop(to, a, &y, c, n, 0, 1); \
    else name##_loop(to, a, &y, &z, n, 0, 0); \
  }
TERNARY(multiply_add, x *y + z)
TERNARY(multiply_subtract, x *y - z)
TERNARY(subtract_product, z - x * y)

/** 64 sums side by side, then halved six times: the order does not depend on the width of the machine's vectors. */
enum { LANES = 64 };

#define REDUCTION(name, start, element, combine) \
  INLINE float name(const float *a, const float *b, size_t n) { \
    float lanes[LANES]; \
    (void)b; \
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = start; \
    size_t i = 0; \
    for (; i + LANES <= n; i += LANES) \
      for (int lane = 0; lane < LANES; lane++) { \
        const float x = lanes[lane], y = element(i + lane); \
        lanes[lane] = combine; \
      } \
    for (int lane = 0; i < n; i++, lane++) { \
      const float x = lanes[lane], y = element(i); \
      lanes[lane] = combine; \
    } \
    for (int size = LANES / 2; size > 0; size /= 2) \
      for (int lane = 0; lane < size; lane++) { \
        const float x = lanes[lane], y = lanes[lane + size]; \
        lanes[lane] = combine; \
      } \
    return lanes[0]; \
  }
#define ELEMENT(i) a[i]
#define PRODUCT(i) a[i] * b[i]
REDUCTION(sum, 0.0f, ELEMENT, x + y)
REDUCTION(maximum, -INFINITY, ELEMENT, x > y || x != x ? x : y)
REDUCTION(dot, 0.0f, PRODUCT, x + y)

static void run_unary(int op, float *to, const float *from, size_t n) {
  switch (op) {
    case COPY: return copy(to, from, n);
    case NEG: return negate(to, from, n);
    case ABS: return absolute(to, from, n);
    case EXP: return exponentials(to, from, n);
    case SQRT: return roots(to, from, n);
    case TANH: return tangents(to, from, n);
    case SIGMOID: return sigmoids(to, from, n);
    case GELU: return gelus(to, from, n);
    case SILU: return silus(to, from, n);
  }
}

static void run_binary(int op, float *to, const float *a, const float *b, size_t n, enum Form form) {
  switch (op) {
    case ADD: return add(to, a, b, n, form);
    case SUB: return subtract(to, a, b, n, form);
    case MUL: return multiply(to, a, b, n, form);
    case DIV: return divide(to, a, b, n, form);
    case MAXIMUM: return larger(to, a, b, n, form);
    case MINIMUM: return smaller(to, a, b, n, form);
  }
}

static void run_ternary(const Instruction *i, float *const *registers, const uint8_t *extents, size_t rows, size_t width) {
  const int all_b = extents[i->b] == FULL, all_c = extents[i->c] == FULL;
  const int by_row = extents[i->b] == COLUMN || extents[i->c] == COLUMN;
  const size_t n = by_row ? width : rows * width;
  for (size_t row = 0; row < (by_row ? rows : 1); row++) {
    const size_t start = row * width;
    float *to = registers[i->to] + start;
    const float *a = registers[i->a] + start;
    const float *b = registers[i->b] + (all_b ? start : extents[i->b] == COLUMN ? row : 0);
    const float *c = registers[i->c] + (all_c ? start : extents[i->c] == COLUMN ? row : 0);
    if (i->op == MULTIPLY_ADD) multiply_add(to, a, b, c, n, all_b, all_c);
    else if (i->op == MULTIPLY_SUBTRACT) multiply_subtract(to, a, b, c, n, all_b, all_c);
    else subtract_product(to, a, b, c, n, all_b, all_c);
  }
}

static void run_reduction(int op, float *to, const float *a, const float *b, size_t rows, size_t width) {
  for (size_t row = 0; row < rows; row++) {
    const float *x = a + row * width, *y = b + row * width;
    to[row] = op == SUM ? sum(x, x, width) : op == MAX ? maximum(x, x, width) : dot(x, y, width);
  }
}

static void run_tile(const Instruction *code, size_t count, float *const *registers, const uint8_t *extents, size_t rows,
              size_t width) {
  for (const Instruction *i = code; i < code + count; i++) {
    float *to = registers[i->to];
    const float *a = registers[i->a], *b = registers[i->b];
    const size_t n = i->extent == FULL ? rows * width : i->extent == COLUMN ? rows : 1;
    const int extent_a = extents[i->a], extent_b = extents[i->b];
    if (i->op >= SUM) {
      run_reduction(i->op, to, a, b, rows, width);
    } else if (i->op >= MULTIPLY_ADD) {
      run_ternary(i, registers, extents, rows, width);
    } else if (i->op < ADD) {
      if (extent_a == i->extent) run_unary(i->op, to, a, n);
      else /* A copy of what is smaller: one value for each row or for all. */
        for (size_t row = 0; row < rows; row++)
          for (size_t k = 0; k < n / rows; k++) to[row * (n / rows) + k] = a[extent_a == COLUMN ? row : 0];
    } else if (i->extent == FULL && (extent_a == COLUMN || extent_b == COLUMN)) {
      for (size_t row = 0; row < rows; row++) {
        const size_t start = row * width;
        const float *x = a + (extent_a == FULL ? start : extent_a == COLUMN ? row : 0);
        const float *y = b + (extent_b == FULL ? start : extent_b == COLUMN ? row : 0);
        run_binary(i->op, to + start, x, y, width, extent_a != FULL ? SINGLE_A : extent_b != FULL ? SINGLE_B : BOTH);
      }
    } else {
      run_binary(i->op, to, a, b, n, extent_a < i->extent ? SINGLE_A : extent_b < i->extent ? SINGLE_B : BOTH);
    }
  }
}

enum { BLOCK = 8 };
typedef float Row __attribute__((vector_size(BLOCK * sizeof(float)), aligned(4)));
typedef int32_t Order __attribute__((vector_size(BLOCK * sizeof(int32_t))));

/** Transposes 8 rows of 8: pairs of numbers, then pairs of pairs, then halves change places. */
INLINE void transpose_block(float *out, size_t out_stride, const float *in, size_t in_stride) {
  const Order low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
  const Order low_pairs = {0, 1, 8, 9, 4, 5, 12, 13}, high_pairs = {2, 3, 10, 11, 6, 7, 14, 15};
  const Order low_half = {0, 1, 2, 3, 8, 9, 10, 11}, high_half = {4, 5, 6, 7, 12, 13, 14, 15};
  Row a[BLOCK], b[BLOCK];
  for (int i = 0; i < BLOCK; i++) a[i] = *(const Row *)(in + i * in_stride);
  for (int i = 0; i < BLOCK; i += 2) {
    b[i] = __builtin_shuffle(a[i], a[i + 1], low);
    b[i + 1] = __builtin_shuffle(a[i], a[i + 1], high);
  }
  for (int i = 0; i < BLOCK; i += 4)
    for (int k = 0; k < 2; k++) {
      a[i + 2 * k] = __builtin_shuffle(b[i + k], b[i + k + 2], low_pairs);
      a[i + 2 * k + 1] = __builtin_shuffle(b[i + k], b[i + k + 2], high_pairs);
    }
  for (int i = 0; i < BLOCK / 2; i++) {
    *(Row *)(out + i * out_stride) = __builtin_shuffle(a[i], a[i + 4], low_half);
    *(Row *)(out + (i + 4) * out_stride) = __builtin_shuffle(a[i], a[i + 4], high_half);
  }
}

static void transpose(float *out, size_t out_stride, const float *in, size_t in_stride, size_t rows, size_t columns) {
  for (size_t column = 0; column < columns; column += BLOCK)
    for (size_t row = 0; row < rows; row += BLOCK) {
      float *to = out + column * out_stride + row;
      const float *from = in + row * in_stride + column;
      if (row + BLOCK <= rows && column + BLOCK <= columns) transpose_block(to, out_stride, from, in_stride);
      else
        for (size_t r = 0; r < BLOCK && row + r < rows; r++)
          for (size_t c = 0; c < BLOCK && column + c < columns; c++) to[c * out_stride + r] = from[r * in_stride + c];
    }
}

static void softmax(float *row, size_t count) {
  const float largest = maximum(row, row, count);
  subtract(row, row, &largest, count, SINGLE_B);
  exponentials(row, row, count);
  const float factor = 1.0f / sum(row, row, count);
  multiply(row, row, &factor, count, SINGLE_B);
}

static void softmax_gradient(float *d, const float *p, float total, size_t count) {
  _Pragma("GCC ivdep") for (size_t i = 0; i < count; i++) d[i] = p[i] * (d[i] - total);
}

static float dot_product(const float *a, const float *b, size_t count) { return dot(a, b, count); }

extern const Products PRODUCTS;
const Level LEVEL = {run_tile, transpose, &PRODUCTS, softmax, softmax_gradient, dot_product};
