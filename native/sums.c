/*
 * The operator `zoetrope::ColumnSums`: the sums over all axes of a value but its last. Rows are cut into the same pieces
 * whatever the number of threads, whose sums are added in order.
 */
#include "operators.h"

#include <stdlib.h>
#include <string.h>

/** Rows that are read side by side, of a piece at least, and pieces at most. */
enum { BESIDE = 8, LEAST_ROWS = 64, MOST_PIECES = 16 };

typedef struct {
  const float *in;
  /** Of each piece, one after the other. */
  float *sums;
  size_t rows, columns, pieces;
} Run;

/** Adds rows that lie one after the other to sums of columns. */
static void add_rows(float *restrict sums, const float *restrict in, size_t rows, size_t columns) {
  for (; rows >= BESIDE; rows -= BESIDE, in += BESIDE * columns)
    for (size_t column = 0; column < columns; column++) {
      float sum = 0;
#pragma GCC unroll 8
      for (size_t row = 0; row < BESIDE; row++) sum += in[row * columns + column];
      sums[column] += sum;
    }
  for (; rows > 0; rows--, in += columns)
    for (size_t column = 0; column < columns; column++) sums[column] += in[column];
}

static void sum_piece(void *pointer, size_t piece) {
  const Run *run = pointer;
  const size_t first = run->rows * piece / run->pieces, last = run->rows * (piece + 1) / run->pieces;
  float *sums = run->sums + piece * run->columns;
  memset(sums, 0, run->columns * sizeof *sums);
  add_rows(sums, run->in + first * run->columns, last - first, run->columns);
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  (void)op, (void)info;
  OrtApi **kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return ort_create_status(api, "ColumnSums: out of memory");
  *kernel = api;
  *out = kernel;
  return NULL;
}

static OrtStatus *compute(void *pointer, OrtContext *context) {
  OrtApi *api = *(OrtApi **)pointer;
  OrtValue *in, *out;
  Sizes shape;
  TRY(ort_input(api, context, 0, &in));
  TRY(read_sizes(api, in, &shape));
  if (shape.rank < 1) return ort_create_status(api, "ColumnSums: needs an axis");
  const int64_t *columns = shape.sizes + shape.rank - 1;
  Run run = {.columns = (size_t)*columns};
  float *sums;
  TRY(ort_output(api, context, 0, columns, 1, &out));
  TRY(ort_data(api, in, (void **)&run.in));
  TRY(ort_data(api, out, (void **)&sums));
  if (run.columns == 0) return NULL;
  run.rows = shape.elements / run.columns;
  run.pieces = run.rows / LEAST_ROWS < MOST_PIECES ? run.rows / LEAST_ROWS + 1 : MOST_PIECES;
  run.sums = take_memory(run.pieces * run.columns);
  if (run.sums == NULL) return ort_create_status(api, "ColumnSums: out of memory");
  OrtStatus *status = ort_parallel_for(api, context, sum_piece, run.pieces, 0, &run);
  memset(sums, 0, run.columns * sizeof *sums);
  add_rows(sums, run.sums, run.pieces, run.columns);
  give_memory(run.sums);
  return status;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "ColumnSums"; }
const OrtCustomOp column_sums_operator = {FLOAT_OPERATOR, .name = name, .create_kernel_2 = create, .compute_2 = compute, .destroy = free};
