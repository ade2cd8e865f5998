/*
 * The operators `zoetrope::RoundedProduct` and `zoetrope::RoundedSums`: products of matrices whose operands are rounded to
 * bfloat16 as they are packed, with sums in float32, for processors that multiply such numbers. Several pairs of matrices are
 * multiplied one after the other. Where sums are cut depends on their sizes alone, so bits do not depend on threads.
 *
 * RoundedProduct: a [batch, rows, inner] times b, [inner, columns] or [columns, inner], once for all or for each of the batch.
 * RoundedSums: the transpose of a [batch, inner, rows] times b [batch, inner, columns].
 *
 * Attributes, written by `src/executors/onnx/rounded.ts`:
 *   sizes       batch, rows, inner, columns
 *   result      sizes of the result
 *   shared      RoundedProduct only: 1 when there is one b for all of the batch
 *   transposed  RoundedProduct only: 1 when b is [columns, inner]
 *   biased      RoundedProduct only: 1 when a third input, [columns], is added to every row
 */
#include "operators.h"
#include "tile.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/** Rows that a thread takes at once: their pairs stay in the first cache while all panels pass by. */
enum { TASK = 32 };
/** Inner rows that are packed at once, for sums; worth sums of their own; most such shares. */
enum { BLOCK = 128, SHARE = 1024, MOST_SHARES = 16 };
/** Sums that stay in the second cache beside what is packed. */
enum { BAND = 128 * 1024 };
/** Pairs in a line of the cache. */
enum { LINE = 16 };

typedef struct {
  OrtApi *api;
  Transposer *transpose;
  size_t batch, rows, inner, columns, rank;
  int64_t result[MOST_AXES];
  int is_shared, is_transposed, is_biased;
} Kernel;

static size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger_of(size_t a, size_t b) { return a > b ? a : b; }
static size_t parts_of(size_t whole, size_t part) { return (whole + part - 1) / part; }
static size_t whole_parts(size_t whole, size_t part) { return parts_of(whole, part) * part; }
static size_t tile_rows(void) { return rounded_products.rows; }
static size_t tile_columns(void) { return rounded_products.columns; }
static size_t pairs_of(size_t inner) { return parts_of(inner, 2); }
static size_t panel_of(size_t inner) { return pairs_of(inner) * tile_columns(); }

/** Pairs of a row that is multiplied: lines of the cache, one more so that rows do not all fall on the same places of it. */
static size_t row_pairs(size_t inner) { return whole_parts(pairs_of(inner), LINE) + LINE; }

static Pair *take_pairs(size_t pairs) { return aligned_alloc(64, whole_parts(pairs, LINE) * sizeof(Pair)); }

static OrtStatus *out_of_memory(OrtApi *api) { return ort_create_status(api, "a product in bfloat16: out of memory"); }

static OrtStatus *read_list(OrtApi *api, const OrtInfo *info, const char *name, int64_t *out, size_t *count) {
  int64_t *values = NULL;
  size_t found;
  OrtStatus *status = read_integers(api, info, name, &values, &found);
  if (status == NULL && found > *count) status = ort_create_status(api, "a product in bfloat16: a list that is too long");
  if (status == NULL) memcpy(out, values, found * sizeof *values);
  *count = found;
  free(values);
  return status;
}

static OrtStatus *read_flag(OrtApi *api, const OrtInfo *info, const char *name, int *out) {
  int64_t value = 0;
  size_t one = 1;
  TRY(ort_integers(api, info, name, &value, &one));
  *out = value != 0;
  return NULL;
}

static OrtStatus *read_sizes_of(Kernel *kernel, const OrtInfo *info) {
  int64_t sizes[4] = {0};
  size_t count = 4;
  TRY(read_list(kernel->api, info, "sizes", sizes, &count));
  kernel->batch = (size_t)sizes[0];
  kernel->rows = (size_t)sizes[1];
  kernel->inner = (size_t)sizes[2];
  kernel->columns = (size_t)sizes[3];
  kernel->rank = MOST_AXES;
  return read_list(kernel->api, info, "result", kernel->result, &kernel->rank);
}

static OrtStatus *read_flags(Kernel *kernel, const OrtInfo *info) {
  TRY(read_flag(kernel->api, info, "shared", &kernel->is_shared));
  TRY(read_flag(kernel->api, info, "transposed", &kernel->is_transposed));
  return read_flag(kernel->api, info, "biased", &kernel->is_biased);
}

static OrtStatus *make_kernel(OrtApi *api, const OrtInfo *info, int has_flags, void **out) {
  if (!multiplies_bfloat16()) return ort_create_status(api, "this processor multiplies no bfloat16");
  Kernel *kernel = calloc(1, sizeof *kernel);
  if (kernel == NULL) return out_of_memory(api);
  kernel->api = api;
  kernel->transpose = best_level()->transpose;
  OrtStatus *status = read_sizes_of(kernel, info);
  if (status == NULL && has_flags) status = read_flags(kernel, info);
  if (status == NULL) *out = kernel;
  else free(kernel);
  return status;
}

static OrtStatus *create_product(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  return (void)op, make_kernel(api, info, 1, out);
}

static OrtStatus *create_sums(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  return (void)op, make_kernel(api, info, 0, out);
}

static OrtStatus *bind(const Kernel *kernel, OrtContext *context, const float **a, const float **b, float **out) {
  OrtApi *api = kernel->api;
  OrtValue *values[3];
  TRY(ort_input(api, context, 0, &values[0]));
  TRY(ort_input(api, context, 1, &values[1]));
  TRY(ort_output(api, context, 0, kernel->result, kernel->rank, &values[2]));
  TRY(ort_data(api, values[0], (void **)a));
  TRY(ort_data(api, values[1], (void **)b));
  return ort_data(api, values[2], (void **)out);
}

/* Rows times panels. */

typedef struct {
  const Kernel *kernel;
  const float *a, *b, *starts;
  Pair *panels;
  float *out;
  atomic_int failed;
} Product;

/** A panel of b, [inner][columns] or transposed. */
static void pack_panel(void *pointer, size_t index) {
  Product *run = pointer;
  const Kernel *kernel = run->kernel;
  const size_t inner = kernel->inner, first = index * tile_columns();
  const size_t count = smaller_of(tile_columns(), kernel->columns - first);
  Pair *panel = run->panels + index * panel_of(inner);
  if (!kernel->is_transposed) {
    rounded_products.write_panels(panel, panel_of(inner), run->b + first, kernel->columns, inner, count);
    return;
  }
  Pair *rows = take_pairs(count * row_pairs(inner));
  if (rows == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  rounded_products.write_rows(rows, row_pairs(inner), run->b + first * inner, inner, count, inner);
  if (count < tile_columns()) memset(panel, 0, panel_of(inner) * sizeof *panel);
  /* Pairs change places as the floats that are as long. */
  kernel->transpose((float *)panel, tile_columns(), (const float *)rows, row_pairs(inner), count, pairs_of(inner));
  free(rows);
}

static void multiply_task(void *pointer, size_t task) {
  Product *run = pointer;
  const Kernel *kernel = run->kernel;
  const size_t first = task * TASK, count = smaller_of(TASK, kernel->rows - first), columns = kernel->columns;
  const size_t stride = row_pairs(kernel->inner), held = whole_parts(count, tile_rows());
  Pair *rows = take_pairs(held * stride);
  if (rows == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  rounded_products.write_rows(rows, stride, run->a + first * kernel->inner, kernel->inner, count, kernel->inner);
  memset(rows + count * stride, 0, (held - count) * stride * sizeof *rows);
  const Pair *panel = run->panels;
  for (size_t column = 0; column < columns; column += tile_columns(), panel += panel_of(kernel->inner))
    for (size_t row = 0; row < count; row += tile_rows())
      rounded_products.multiply(run->out + (first + row) * columns + column, columns, smaller_of(tile_rows(), count - row),
                                smaller_of(tile_columns(), columns - column), rows + row * stride, stride, panel,
                                pairs_of(kernel->inner), run->starts + column);
  free(rows);
}

static OrtStatus *multiply_batch(Product *run, OrtContext *context) {
  const Kernel *kernel = run->kernel;
  const size_t panels = parts_of(kernel->columns, tile_columns()), tasks = parts_of(kernel->rows, TASK);
  for (size_t i = 0; i < kernel->batch; i++) {
    if (i == 0 || !kernel->is_shared) TRY(ort_parallel_for(kernel->api, context, pack_panel, panels, 0, run));
    TRY(ort_parallel_for(kernel->api, context, multiply_task, tasks, 0, run));
    run->a += kernel->rows * kernel->inner;
    run->out += kernel->rows * kernel->columns;
    if (!kernel->is_shared) run->b += kernel->inner * kernel->columns;
  }
  return atomic_load(&run->failed) ? out_of_memory(kernel->api) : NULL;
}

static OrtStatus *multiply(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  const size_t columns = whole_parts(kernel->columns, tile_columns());
  const size_t size = columns * pairs_of(kernel->inner);
  const float *bias = NULL;
  Product run = {.kernel = kernel};
  TRY(bind(kernel, context, &run.a, &run.b, &run.out));
  if (kernel->is_biased) {
    OrtValue *value;
    TRY(ort_input(kernel->api, context, 2, &value));
    TRY(ort_data(kernel->api, value, (void **)&bias));
  }
  float *memory = take_memory(size + columns);
  if (memory == NULL) return out_of_memory(kernel->api);
  memset(memory + size, 0, columns * sizeof *memory);
  if (bias != NULL) memcpy(memory + size, bias, kernel->columns * sizeof *memory);
  run.panels = (Pair *)memory;
  run.starts = memory + size;
  OrtStatus *status = multiply_batch(&run, context);
  give_memory(memory);
  return status;
}

/* Sums of outer products: inner rows are cut into shares with sums of their own, result rows into bands. */

typedef struct {
  const Kernel *kernel;
  const float *a, *b;
  float *sums, *out;
  /** Inner rows of a share; result rows of a band. */
  size_t share, shares, band, bands;
  /** Rows and columns of a share's sums, filled up to whole tiles. */
  size_t rows, columns;
  atomic_int failed;
} Sums;

/** Adds the products of packed inner rows to a band's sums. */
static void add_block(const Sums *run, float *sums, size_t rows, const Pair *a, const Pair *b, size_t inner) {
  const size_t panel = panel_of(BLOCK);
  for (size_t column = 0; column < run->columns; column += tile_columns())
    for (size_t row = 0; row < rows; row += tile_rows())
      rounded_products.add_products(sums + row * run->columns + column, run->columns,
                                    a + row / tile_columns() * panel + row % tile_columns(),
                                    b + column / tile_columns() * panel, pairs_of(inner));
}

static void sum_task(void *pointer, size_t task) {
  Sums *run = pointer;
  const Kernel *kernel = run->kernel;
  const size_t share = task / run->bands, first_row = task % run->bands * run->band;
  const size_t rows = smaller_of(run->band, kernel->rows - first_row), panel = panel_of(BLOCK);
  const size_t left = parts_of(rows, tile_columns()) * panel, right = run->columns / tile_columns() * panel;
  const size_t last = smaller_of((share + 1) * run->share, kernel->inner);
  float *sums = run->sums + (share * run->rows + first_row) * run->columns;
  Pair *memory = take_pairs(left + right);
  if (memory == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  memset(sums, 0, whole_parts(rows, tile_rows()) * run->columns * sizeof *sums);
  for (size_t first = share * run->share; first < last; first += BLOCK) {
    const size_t inner = smaller_of(BLOCK, last - first);
    rounded_products.write_panels(memory, panel, run->a + first * kernel->rows + first_row, kernel->rows, inner, rows);
    rounded_products.write_panels(memory + left, panel, run->b + first * kernel->columns, kernel->columns, inner,
                                  kernel->columns);
    add_block(run, sums, rows, memory, memory + left, inner);
  }
  free(memory);
}

/** One row of the result: the sums of all shares, in their order. */
static void add_shares(void *pointer, size_t row) {
  const Sums *run = pointer;
  const size_t columns = run->kernel->columns;
  const float *from = run->sums + row * run->columns;
  float *to = run->out + row * columns;
  memcpy(to, from, columns * sizeof *to);
  for (size_t share = 1; share < run->shares; share++) {
    from += run->rows * run->columns;
    for (size_t i = 0; i < columns; i++) to[i] += from[i];
  }
}

static OrtStatus *sum_batch(Sums *run, OrtContext *context) {
  const Kernel *kernel = run->kernel;
  for (size_t i = 0; i < kernel->batch; i++) {
    TRY(ort_parallel_for(kernel->api, context, sum_task, run->shares * run->bands, 0, run));
    if (atomic_load(&run->failed)) return out_of_memory(kernel->api);
    TRY(ort_parallel_for(kernel->api, context, add_shares, kernel->rows, 0, run));
    run->a += kernel->inner * kernel->rows;
    run->b += kernel->inner * kernel->columns;
    run->out += kernel->rows * kernel->columns;
  }
  return NULL;
}

static OrtStatus *sum(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  Sums run = {.kernel = kernel};
  TRY(bind(kernel, context, &run.a, &run.b, &run.out));
  const size_t wanted = smaller_of(MOST_SHARES, parts_of(kernel->inner, SHARE));
  run.share = whole_parts(parts_of(kernel->inner, wanted), 2);
  run.shares = parts_of(kernel->inner, run.share);
  run.columns = whole_parts(kernel->columns, tile_columns());
  run.rows = whole_parts(kernel->rows, tile_rows());
  /* Bands of equal height; panels of a begin with them. */
  const size_t bands = parts_of(run.rows * run.columns, BAND);
  run.band = larger_of(1, whole_parts(parts_of(run.rows, bands), tile_columns()));
  run.bands = parts_of(kernel->rows, run.band);
  run.sums = take_memory(run.shares * run.rows * run.columns);
  if (run.sums == NULL) return out_of_memory(kernel->api);
  OrtStatus *status = sum_batch(&run, context);
  give_memory(run.sums);
  return status;
}

static const char *product_name(const OrtCustomOp *op) { return (void)op, "RoundedProduct"; }
const OrtCustomOp rounded_product_operator = {
    FLOAT_OPERATOR, .name = product_name, .create_kernel_2 = create_product, .compute_2 = multiply, .destroy = free};

static const char *sums_name(const OrtCustomOp *op) { return (void)op, "RoundedSums"; }
const OrtCustomOp rounded_sums_operator = {
    FLOAT_OPERATOR, .name = sums_name, .create_kernel_2 = create_sums, .compute_2 = sum, .destroy = free};
