/*
 * The operator `zoetrope::Square`: a a^T for each matrix a of the last two axes. What lies below the diagonal mirrors what
 * lies above it and is copied, so that it takes little more than half of a product. A panel of columns is a task.
 */
#include "operators.h"
#include "tile.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 16 };

typedef struct {
  OrtApi *api;
  const Level *level;
} Kernel;

typedef struct {
  const Level *level;
  const float *in;
  float *out;
  size_t rows, inner, panels;
  atomic_int failed;
} Run;

static size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }
static size_t lines_of(size_t floats) { return (floats + LINE - 1) / LINE * LINE; }

/** A panel of columns down to the diagonal: tiles are read whole, those that end behind the matrix from a copy. */
static void multiply_panel(const Run *run, const float *a, float *out, size_t first, size_t count, float *memory) {
  static const float zeros[64] = {0};
  const Products *products = run->level->products;
  const size_t inner = run->inner, last = first + count;
  float *panel = memory, *tail = memory + lines_of(products->columns * inner);
  if (count < products->columns) memset(panel, 0, products->columns * inner * sizeof *panel);
  run->level->transpose(panel, products->columns, a + first * inner, inner, count, inner);
  for (size_t row = 0; row < last; row += products->rows) {
    const float *from = a + row * inner;
    if (row + products->rows > run->rows) {
      memset(tail, 0, products->rows * inner * sizeof *tail);
      from = memcpy(tail, from, (run->rows - row) * inner * sizeof *tail);
    }
    products->multiply(out + row * run->rows + first, run->rows, smaller_of(products->rows, last - row), count, from, inner,
                       panel, inner, zeros);
  }
}

static void square_panel(void *pointer, size_t task) {
  Run *run = pointer;
  const Products *products = run->level->products;
  const float *a = run->in + task / run->panels * run->rows * run->inner;
  float *out = run->out + task / run->panels * run->rows * run->rows;
  const size_t first = task % run->panels * products->columns;
  const size_t count = smaller_of(products->columns, run->rows - first);
  float *memory = aligned_alloc(64, lines_of((products->columns + products->rows) * run->inner + LINE) * sizeof *memory);
  if (memory == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  multiply_panel(run, a, out, first, count, memory);
  run->level->transpose(out + first * run->rows, run->rows, out + first, run->rows, first, count);
  free(memory);
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  (void)op, (void)info;
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return ort_create_status(api, "Square: out of memory");
  *kernel = (Kernel){api, best_level()};
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
  if (shape.rank < 2) return ort_create_status(api, "Square: needs two axes");
  int64_t *sizes = shape.sizes + shape.rank - 2;
  Run run = {.level = kernel->level, .rows = (size_t)sizes[0], .inner = (size_t)sizes[1]};
  sizes[1] = sizes[0];
  TRY(ort_output(api, context, 0, shape.sizes, shape.rank, &out));
  TRY(ort_data(api, in, (void **)&run.in));
  TRY(ort_data(api, out, (void **)&run.out));
  if (shape.elements == 0) return NULL;
  run.panels = (run.rows + kernel->level->products->columns - 1) / kernel->level->products->columns;
  const size_t tasks = shape.elements / (run.rows * run.inner) * run.panels;
  TRY(ort_parallel_for(api, context, square_panel, tasks, 0, &run));
  return atomic_load(&run.failed) ? ort_create_status(api, "Square: out of memory") : NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "Square"; }
const OrtCustomOp square_operator = {FLOAT_OPERATOR, .name = name, .create_kernel_2 = create, .compute_2 = compute, .destroy = free};
