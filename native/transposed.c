/*
 * The operator `zoetrope::Transposed`: the last two axes change places. ONNX Runtime's own does that on one thread, and its
 * products with a transposed left side lose more time than this takes.
 */
#include "operators.h"
#include "tile.h"

#include <stdlib.h>

/** Rows that a thread takes at once: columns of the result that fill whole lines of the cache. */
enum { STRIPE = 64 };

typedef struct {
  OrtApi *api;
  Transposer *transpose;
} Kernel;

typedef struct {
  const Kernel *kernel;
  const float *in;
  float *out;
  size_t rows, columns, stripes;
} Run;

static void transpose_stripe(void *pointer, size_t task) {
  const Run *run = pointer;
  const size_t matrix = task / run->stripes * run->rows * run->columns;
  const size_t row = task % run->stripes * STRIPE;
  const size_t rows = row + STRIPE < run->rows ? STRIPE : run->rows - row;
  run->kernel->transpose(run->out + matrix + row, run->rows, run->in + matrix + row * run->columns, run->columns, rows,
                         run->columns);
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  (void)op, (void)info;
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return ort_create_status(api, "Transposed: out of memory");
  *kernel = (Kernel){api, best_level()->transpose};
  *out = kernel;
  return NULL;
}

static OrtStatus *compute(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  OrtApi *api = kernel->api;
  OrtValue *in, *out;
  Sizes shape;
  TRY(ort_input(api, context, 0, &in));
  TRY(read_sizes(api, in, &shape));
  if (shape.rank < 2) return ort_create_status(api, "Transposed: needs two axes");
  int64_t *sizes = shape.sizes + shape.rank - 2;
  Run run = {kernel, NULL, NULL, (size_t)sizes[0], (size_t)sizes[1], ((size_t)sizes[0] + STRIPE - 1) / STRIPE};
  sizes[0] = (int64_t)run.columns;
  sizes[1] = (int64_t)run.rows;
  TRY(ort_output(api, context, 0, shape.sizes, shape.rank, &out));
  TRY(ort_data(api, in, (void **)&run.in));
  TRY(ort_data(api, out, (void **)&run.out));
  if (shape.elements == 0) return NULL;
  const size_t tasks = shape.elements / (run.rows * run.columns) * run.stripes;
  return ort_parallel_for(api, context, transpose_stripe, tasks, 0, &run);
}

static const char *name(const OrtCustomOp *op) { return (void)op, "Transposed"; }
const OrtCustomOp transposed_operator = {
    FLOAT_OPERATOR, .name = name, .create_kernel_2 = create, .compute_2 = compute, .destroy = free};
