/* What the operators ask of `tile.c` and `product.c`. */
#ifndef ZOETROPE_TILE_H
#define ZOETROPE_TILE_H

#include <stddef.h>
#include <stdint.h>

/** What a register holds: one value, one for each row, or one for each element. */
enum Extent { SCALAR, COLUMN, FULL };

/**
 * Instructions; the numbers are those of `src/executors/onnx/fused/registers.ts`. a b + c, a b - c and c - a b round twice, as
 * two operations would.
 */
enum Opcode {
  COPY, NEG, ABS, EXP, SQRT, TANH, SIGMOID, GELU, SILU,
  ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM,
  MULTIPLY_ADD, MULTIPLY_SUBTRACT, SUBTRACT_PRODUCT,
  SUM, MAX, DOT,
  OPCODES
};

typedef struct {
  int op, extent, to, a, b, c;
} Instruction;

/** Runs instructions on registers: a tile of some rows, each `width` elements long. */
typedef void TileRunner(const Instruction *code, size_t count, float *const *registers, const uint8_t *extents,
                        size_t rows, size_t width);

/** Writes a matrix with rows and columns exchanged; strides are the distances between rows. */
typedef void Transposer(float *out, size_t out_stride, const float *in, size_t in_stride, size_t rows, size_t columns);

/** Rows of two matrices that lie at regular distances: as many as `length`. */
typedef struct {
  const float *a, *b;
  size_t length;
} Stretch;

/** The inner loops of products, over tiles of so many rows and columns. */
typedef struct {
  size_t rows, columns;
  /**
   * out = start + a b for rows of `a`, `a_stride` apart, and a panel of b: [inner][columns]; `start` is one row. Reads all rows of
   * the tile and writes as many rows and columns as are asked for.
   */
  void (*multiply)(float *out, size_t out_stride, size_t rows, size_t columns, const float *a, size_t a_stride,
                   const float *panel, size_t inner, const float *start);
  /** out += the sum over the rows of stretches of a^T b, for whole tiles. */
  void (*add_products)(float *out, size_t out_stride, const Stretch *stretches, size_t count, size_t a_stride,
                       size_t b_stride);
} Products;

/** Two numbers rounded to bfloat16, neighbours along the axis that products are summed over; the first is the lower half. */
typedef uint32_t Pair;

/** The inner loops of products of rounded numbers. An axis of odd length ends with a 0. */
typedef struct {
  size_t rows, columns;
  /** Rounds a matrix whose rows are summed over; rows of the result are whole lines of the cache, filled up with zeros. */
  void (*write_rows)(Pair *out, size_t out_stride, const float *in, size_t in_stride, size_t rows, size_t columns);
  /** Rounds a matrix whose columns are summed over to panels, `panel` apart: each [pairs of rows][columns], zeros beyond. */
  void (*write_panels)(Pair *out, size_t panel, const float *in, size_t in_stride, size_t rows, size_t columns);
  /** As that of `Products`, for rows of pairs and a panel. */
  void (*multiply)(float *out, size_t out_stride, size_t rows, size_t columns, const Pair *a, size_t a_stride,
                   const Pair *panel, size_t pairs, const float *start);
  /** sums += a^T b for panels a and b, of a so many columns from `a` on as a tile has rows. */
  void (*add_products)(float *sums, size_t stride, const Pair *a, const Pair *b, size_t pairs);
} RoundedProducts;

/** Only for processors that `multiplies_bfloat16`. */
extern const RoundedProducts rounded_products;

/** What was compiled for one level of x86-64. */
typedef struct {
  TileRunner *run;
  Transposer *transpose;
  const Products *products;
  /** Softmax of a row, in place. */
  void (*softmax)(float *row, size_t count);
  /** Of a row of softmax's gradients the scores': p (d - total), in place of d. */
  void (*softmax_gradient)(float *d, const float *p, float total, size_t count);
  float (*dot)(const float *a, const float *b, size_t count);
} Level;

extern const Level level_v2, level_v3, level_v4;

/** The highest level of this machine, which has the lowest. */
const Level *best_level(void);

/** Whether this machine multiplies bfloat16, and has the highest level. */
int multiplies_bfloat16(void);

#endif
