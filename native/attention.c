/*
 * The operators `zoetrope::Attention` and `zoetrope::AttentionGradient`, over q [B, S, H, D] and k, v [B, T, H, D]. A head of a
 * sequence is a task: its scores are made for some queries at a time and never leave the second cache, and tokens of other
 * segments are not looked at. Sums have one order whatever the number of threads.
 *
 * Attention          q, k, v -> y
 * AttentionGradient  q, k, v, y, dy -> dq, dk, dv
 *
 * Attributes, written by `src/executors/onnx/attention.ts`:
 *   scale      of the scores
 *   segmented  1 when there is one more input: the offsets of segments, [B, N + 1], as floats
 *   rounded    1 when operands of products are rounded to bfloat16 (`rounded-attention.c`)
 */
#include "attention.h"

#include <stdlib.h>
#include <string.h>

/** Tasks, each with memory of its own, that heads are shared out to. */
enum { MOST_TASKS = 16 };
_Static_assert(BLOCK % 4 == 0 && BLOCK % 6 == 0 && BLOCK % 8 == 0, "whole tiles of rows are read at every level");
enum { MOST_OPERANDS = 9, LINE = 16 };

/** Rows of `from` as panels of some columns: [inner][columns] each, times a factor. */
static void write_panels(const Run *run, const float *from, const Segment *at, float factor, float *panels) {
  const size_t columns = run->kernel->level->products->columns;
  for (size_t first = 0; first < run->size; first += columns)
    for (size_t row = 0; row < at->keys; row++, panels += columns) {
      const size_t count = smaller_of(columns, run->size - first);
      for (size_t i = 0; i < count; i++) panels[i] = factor * from[row * at->stride + first + i];
      memset(panels + count, 0, (columns - count) * sizeof *panels);
    }
}

/** The same of the transposed matrix: panels of some rows. */
static void write_transposed_panels(const Run *run, const float *from, const Segment *at, float *panels) {
  const size_t columns = run->kernel->level->products->columns;
  for (size_t first = 0; first < at->keys; first += columns, panels += columns * run->size) {
    const size_t count = smaller_of(columns, at->keys - first);
    if (count < columns) memset(panels, 0, columns * run->size * sizeof *panels);
    run->kernel->level->transpose(panels, columns, from + first * at->stride, at->stride, count, run->size);
  }
}

/** Rows of a block that are read when `count` are asked for: those of whole tiles. */
static size_t rows_read(const Run *run, size_t count) { return filled(count, run->kernel->level->products->rows); }

/** Rows next to each other, filled up with zeros, times a factor; rows beyond `count` that are read are zeros. */
static void copy_rows(const Run *run, const float *from, const Segment *at, size_t count, float factor, float *to) {
  for (size_t row = 0; row < rows_read(run, count); row++, to += at->wide_size) {
    const size_t length = row < count ? run->size : 0;
    for (size_t i = 0; i < length; i++) to[i] = factor * from[row * at->stride + i];
    memset(to + length, 0, (at->wide_size - length) * sizeof *to);
  }
}

/** out = a b for `rows` rows of a, `a_stride` apart, and the panels of b. Reads whole tiles of rows. */
static void multiply(const Run *run, float *out, size_t out_stride, size_t rows, size_t columns, const float *a,
                     size_t a_stride, const float *panels, size_t inner) {
  static const float zeros[64] = {0};
  const Products *products = run->kernel->level->products;
  for (size_t column = 0; column < columns; column += products->columns, panels += inner * products->columns)
    for (size_t row = 0; row < rows; row += products->rows)
      products->multiply(out + row * out_stride + column, out_stride, smaller_of(products->rows, rows - row),
                         smaller_of(products->columns, columns - column), a + row * a_stride, a_stride, panels, inner, zeros);
}

/** out += a^T b over `rows` rows: a [rows][wide_keys], b [rows][wide_size]. */
static void add_products(const Run *run, float *out, const Segment *at, const float *a, const float *b, size_t rows) {
  const Products *products = run->kernel->level->products;
  for (size_t column = 0; column < at->wide_size; column += products->columns)
    for (size_t key = 0; key < at->keys; key += products->rows) {
      const Stretch stretch = {a + key, b + column, rows};
      products->add_products(out + key * at->wide_size + column, at->wide_size, &stretch, 1, at->wide_keys, at->wide_size);
    }
}

/** Softmax of the scores of a block's queries, [count][wide_keys]; rows up to a whole tile are zeros. */
static void make_weights(const Run *run, const Segment *at, const float *queries, size_t count, const float *key_panels,
                         float *weights) {
  multiply(run, weights, at->wide_keys, count, at->keys, queries, at->wide_size, key_panels, run->size);
  for (size_t row = 0; row < count; row++) {
    run->kernel->level->softmax(weights + row * at->wide_keys, at->keys);
    memset(weights + row * at->wide_keys + at->keys, 0, (at->wide_keys - at->keys) * sizeof *weights);
  }
  memset(weights + count * at->wide_keys, 0, (rows_read(run, count) - count) * at->wide_keys * sizeof *weights);
}

static void attend(const Run *run, const Segment *at, float *memory) {
  float *key_panels = memory, *value_panels = key_panels + at->wide_keys * run->size;
  float *queries = value_panels + at->keys * at->wide_size, *weights = queries + BLOCK * at->wide_size;
  write_transposed_panels(run, run->k + at->key, at, key_panels);
  write_panels(run, run->v + at->key, at, 1, value_panels);
  for (size_t first = 0; first < at->queries; first += BLOCK) {
    const size_t count = smaller_of(BLOCK, at->queries - first), place = at->query + first * at->stride;
    copy_rows(run, run->q + place, at, count, run->kernel->scale, queries);
    make_weights(run, at, queries, count, key_panels, weights);
    multiply(run, run->out + place, at->stride, count, run->size, weights, at->wide_keys, value_panels, at->keys);
  }
}

static size_t memory_of_attend(const Segment *at, size_t size) {
  return at->wide_keys * size + at->keys * at->wide_size + BLOCK * (at->wide_size + at->wide_keys);
}

/** Writes the sums of a segment's keys. */
static void write_sums(const Run *run, const Segment *at, const float *sums, float *out) {
  for (size_t key = 0; key < at->keys; key++)
    memcpy(out + at->key + key * at->stride, sums + key * at->wide_size, run->size * sizeof *out);
}

/** dP = dy v^T, dS = P (dP - dy . y), dq = scale dS k, dk = scale dS^T q, dv = P^T dy. */
static void differentiate(const Run *run, const Segment *at, float *memory) {
  const Level *level = run->kernel->level;
  const size_t keys_by_size = at->wide_keys * at->wide_size, block = BLOCK * at->wide_keys;
  float *key_panels = memory, *value_panels = key_panels + keys_by_size, *scaled_keys = value_panels + keys_by_size;
  float *dk = scaled_keys + keys_by_size, *dv = dk + keys_by_size;
  float *weights = dv + keys_by_size, *changes = weights + block;
  float *queries = changes + block, *dy = queries + BLOCK * at->wide_size;
  write_transposed_panels(run, run->k + at->key, at, key_panels);
  write_transposed_panels(run, run->v + at->key, at, value_panels);
  write_panels(run, run->k + at->key, at, run->kernel->scale, scaled_keys);
  memset(dk, 0, 2 * keys_by_size * sizeof *dk);
  for (size_t first = 0; first < at->queries; first += BLOCK) {
    const size_t count = smaller_of(BLOCK, at->queries - first), place = at->query + first * at->stride;
    copy_rows(run, run->q + place, at, count, run->kernel->scale, queries);
    copy_rows(run, run->dy + place, at, count, 1, dy);
    make_weights(run, at, queries, count, key_panels, weights);
    multiply(run, changes, at->wide_keys, count, at->keys, dy, at->wide_size, value_panels, run->size);
    for (size_t row = 0; row < count; row++) {
      const float total = level->dot(dy + row * at->wide_size, run->y + place + row * at->stride, run->size);
      float *change = changes + row * at->wide_keys;
      level->softmax_gradient(change, weights + row * at->wide_keys, total, at->keys);
      memset(change + at->keys, 0, (at->wide_keys - at->keys) * sizeof *change);
    }
    memset(changes + count * at->wide_keys, 0, (rows_read(run, count) - count) * at->wide_keys * sizeof *changes);
    add_products(run, dv, at, weights, dy, count);
    add_products(run, dk, at, changes, queries, count);
    multiply(run, run->dq + place, at->stride, count, run->size, changes, at->wide_keys, scaled_keys, at->keys);
  }
  write_sums(run, at, dk, run->dk);
  write_sums(run, at, dv, run->dv);
}

static size_t memory_of_differentiate(const Segment *at) {
  return 5 * at->wide_keys * at->wide_size + 2 * BLOCK * (at->wide_keys + at->wide_size);
}

/** Sets a head's results to zero for some tokens: those that are in no segment. */
static void clear_rows(const Run *run, const Segment *whole, size_t first, size_t end) {
  float *const results[] = {run->out, run->dq, run->dk, run->dv};
  for (int i = 0; i < 4; i++)
    for (size_t row = first; results[i] != NULL && row < end; row++)
      memset(results[i] + whole->query + row * whole->stride, 0, run->size * sizeof **results);
}

static Segment segment_of(const Run *run, size_t batch, size_t head, size_t query, size_t queries, size_t key, size_t keys) {
  const Products *products = run->kernel->level->products;
  const size_t stride = run->heads * run->size, place = head * run->size;
  size_t tile = products->columns;
  while (tile % products->rows != 0) tile += products->columns;
  return (Segment){queries,
                   keys,
                   stride,
                   (batch * run->queries + query) * stride + place,
                   (batch * run->keys + key) * stride + place,
                   filled(keys, tile),
                   filled(run->size, products->columns)};
}

static void run_segment(const Run *run, const Segment *at, float *memory) {
  if (run->kernel->rounded) return run->out != NULL ? attend_rounded(run, at, memory) : differentiate_rounded(run, at, memory);
  if (run->out != NULL) attend(run, at, memory);
  else differentiate(run, at, memory);
}

/** Floats of memory that a segment of this size takes. */
static size_t memory_of(const Run *run, const Segment *at) {
  if (run->kernel->rounded) return run->out != NULL ? memory_of_attend_rounded(at) : memory_of_differentiate_rounded(at);
  return run->out != NULL ? memory_of_attend(at, run->size) : memory_of_differentiate(at);
}

/** A head of one sequence, segment by segment. */
static void run_head(const Run *run, size_t batch, size_t head, float *memory) {
  const Segment whole = segment_of(run, batch, head, 0, run->queries, 0, run->keys);
  if (run->offsets == NULL) return run_segment(run, &whole, memory);
  const float *offsets = run->offsets + batch * run->offset_count, last = (float)run->keys;
  size_t done = 0;
  for (size_t i = 0; i + 1 < run->offset_count; i++) {
    const size_t from = (size_t)(offsets[i] < 0 ? 0 : offsets[i] > last ? last : offsets[i]);
    const size_t to = (size_t)(offsets[i + 1] < 0 ? 0 : offsets[i + 1] > last ? last : offsets[i + 1]);
    if (from >= to) continue;
    clear_rows(run, &whole, done, from);
    done = done > to ? done : to;
    const Segment segment = segment_of(run, batch, head, from, to - from, from, to - from);
    run_segment(run, &segment, memory);
  }
  clear_rows(run, &whole, done, run->queries);
}

static void run_task(void *pointer, size_t task) {
  const Run *run = pointer;
  for (size_t i = task; i < run->batch * run->heads; i += run->tasks)
    run_head(run, i / run->heads, i % run->heads, run->memory + task * run->floats_of_task);
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  (void)op;
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return ort_create_status(api, "Attention: out of memory");
  *kernel = (Kernel){api, best_level(), 1, 0, 0};
  int64_t segmented = 0, rounded = 0;
  size_t one = 1;
  OrtStatus *status = ort_floats(api, info, "scale", &kernel->scale, &one);
  if (status == NULL) status = ort_integers(api, info, "segmented", &segmented, &one);
  if (status == NULL) status = ort_integers(api, info, "rounded", &rounded, &one);
  if (status == NULL && rounded != 0 && !multiplies_bfloat16())
    status = ort_create_status(api, "Attention: this processor multiplies no bfloat16");
  kernel->segmented = segmented != 0;
  kernel->rounded = rounded != 0;
  if (status == NULL) *out = kernel;
  else free(kernel);
  return status;
}

/** Reads the operands, of which the offsets are the last, and the sizes. */
static OrtStatus *bind(Run *run, OrtContext *context, const float **operands[], size_t count) {
  OrtApi *api = run->kernel->api;
  Sizes sizes[MOST_OPERANDS];
  for (size_t i = 0; i < count + (size_t)run->kernel->segmented; i++) {
    OrtValue *value;
    TRY(ort_input(api, context, i, &value));
    TRY(read_sizes(api, value, sizes + i));
    TRY(ort_data(api, value, (void **)(i < count ? operands[i] : &run->offsets)));
  }
  const int64_t *q = sizes[0].sizes;
  run->batch = (size_t)q[0];
  run->queries = (size_t)q[1];
  run->heads = (size_t)q[2];
  run->size = (size_t)q[3];
  run->keys = (size_t)sizes[1].sizes[1];
  if (run->kernel->segmented) run->offset_count = (size_t)sizes[count].sizes[1];
  return NULL;
}

static OrtStatus *make_output(const Run *run, OrtContext *context, size_t index, size_t tokens, float **out) {
  const int64_t sizes[] = {(int64_t)run->batch, (int64_t)tokens, (int64_t)run->heads, (int64_t)run->size};
  OrtValue *value;
  TRY(ort_output(run->kernel->api, context, index, sizes, 4, &value));
  return ort_data(run->kernel->api, value, (void **)out);
}

static OrtStatus *run_heads(Run *run, OrtContext *context) {
  OrtApi *api = run->kernel->api;
  const Segment whole = segment_of(run, 0, 0, 0, run->queries, 0, run->keys);
  run->tasks = smaller_of(MOST_TASKS, run->batch * run->heads);
  run->floats_of_task = filled(memory_of(run, &whole), LINE);
  run->memory = take_memory(run->tasks * run->floats_of_task);
  if (run->memory == NULL) return ort_create_status(api, "Attention: out of memory");
  OrtStatus *status = ort_parallel_for(api, context, run_task, run->tasks, 0, run);
  give_memory(run->memory);
  return status;
}

static OrtStatus *compute(void *pointer, OrtContext *context) {
  Run run = {.kernel = pointer};
  const float **operands[] = {&run.q, &run.k, &run.v};
  TRY(bind(&run, context, operands, 3));
  TRY(make_output(&run, context, 0, run.queries, &run.out));
  return run_heads(&run, context);
}

static OrtStatus *compute_gradient(void *pointer, OrtContext *context) {
  Run run = {.kernel = pointer};
  const float **operands[] = {&run.q, &run.k, &run.v, &run.y, &run.dy};
  TRY(bind(&run, context, operands, 5));
  TRY(make_output(&run, context, 0, run.queries, &run.dq));
  TRY(make_output(&run, context, 1, run.keys, &run.dk));
  TRY(make_output(&run, context, 2, run.keys, &run.dv));
  return run_heads(&run, context);
}

static const char *name(const OrtCustomOp *op) { return (void)op, "Attention"; }
const OrtCustomOp attention_operator = {
    FLOAT_OPERATOR, .name = name, .create_kernel_2 = create, .compute_2 = compute, .destroy = free};

static const char *gradient_name(const OrtCustomOp *op) { return (void)op, "AttentionGradient"; }
const OrtCustomOp attention_gradient_operator = {
    FLOAT_OPERATOR, .name = gradient_name, .create_kernel_2 = create, .compute_2 = compute_gradient, .destroy = free};
