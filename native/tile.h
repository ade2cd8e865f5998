/* What `fused.c` and `transposed.c` ask of `tile.c`. */
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

/** The same for one level of x86-64. */
typedef struct {
  TileRunner *run;
  Transposer *transpose;
} Level;

extern const Level level_v2, level_v3, level_v4;

/** The highest level of this machine. */
const Level *best_level(void);

#endif
