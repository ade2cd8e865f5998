/*
 * The operators `zoetrope::Convolution` and `zoetrope::KernelGradient`, over x [N, D, H, W, C] with kernels
 * [outputs, kD, kH, kW, C]: channels stay last, and what a position sees is put side by side for a few positions at a time,
 * in the first cache. Sums have one order whatever the number of threads.
 *
 * Attributes, written by `src/executors/onnx/convolution.ts`:
 *   geometry   N; D, H, W, C of x; D, H, W, C of the result; sizes, strides and padding (in front) of the kernel
 *   result     sizes of the result
 *   biased     Convolution only: 1 when a third input, [outputs], is added to every position
 *   reversed   Convolution only: 1 when the kernel is [C, kD, kH, kW, outputs] and every axis of it is read backwards, which is
 *              the gradient of a convolution's input
 */
#include "operators.h"
#include "tile.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/** Positions that a thread takes at once; that are summed before they are added to what was before; stretches of them. */
enum { TASK = 64, BLOCK = 64, MOST_STRETCHES = BLOCK };
/** Positions worth a sum of their own in the gradient, and most such sums. */
enum { SHARE = 512, MOST_SHARES = 16 };
enum { GEOMETRY = 18, LINE = 16 };

typedef struct {
  size_t items, in[3], inputs, out[3], outputs, size[3], stride[3], pad[3];
} Geometry;

typedef struct {
  OrtApi *api;
  const Products *products;
  Transposer *transpose;
  Geometry at;
  size_t rank;
  int64_t result[MOST_AXES];
  int biased, reversed;
} Kernel;

static size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger_of(size_t a, size_t b) { return a > b ? a : b; }
static size_t parts_of(size_t whole, size_t part) { return (whole + part - 1) / part; }
static size_t taps_of(const Geometry *at) { return at->size[0] * at->size[1] * at->size[2]; }
static size_t positions_of(const Geometry *at) { return at->items * at->out[0] * at->out[1] * at->out[2]; }

static OrtStatus *read_geometry(Kernel *kernel, const OrtInfo *info) {
  int64_t *values = NULL;
  size_t count;
  OrtStatus *status = read_integers(kernel->api, info, "geometry", &values, &count);
  if (status == NULL && count != GEOMETRY) status = ort_create_status(kernel->api, "Convolution: geometry of 18 numbers");
  if (status == NULL) {
    size_t *to = (size_t *)&kernel->at;
    for (size_t i = 0; i < GEOMETRY; i++) to[i] = (size_t)values[i];
  }
  free(values);
  return status;
}

static OrtStatus *read_result(Kernel *kernel, const OrtInfo *info) {
  int64_t *values = NULL;
  OrtStatus *status = read_integers(kernel->api, info, "result", &values, &kernel->rank);
  if (status == NULL && kernel->rank > MOST_AXES) status = ort_create_status(kernel->api, "Convolution: more than 8 axes");
  if (status == NULL) memcpy(kernel->result, values, kernel->rank * sizeof *values);
  free(values);
  return status;
}

static OrtStatus *make_kernel(OrtApi *api, const OrtInfo *info, int has_direction, void **out) {
  Kernel *kernel = calloc(1, sizeof *kernel);
  if (kernel == NULL) return ort_create_status(api, "Convolution: out of memory");
  kernel->api = api;
  kernel->products = best_level()->products;
  kernel->transpose = best_level()->transpose;
  int64_t biased = 0, reversed = 0;
  size_t one = 1;
  OrtStatus *status = read_geometry(kernel, info);
  if (status == NULL) status = read_result(kernel, info);
  if (status == NULL && has_direction) status = ort_integers(api, info, "reversed", &reversed, &one);
  if (status == NULL && has_direction) status = ort_integers(api, info, "biased", &biased, &one);
  kernel->biased = biased != 0;
  kernel->reversed = reversed != 0;
  if (status == NULL) *out = kernel;
  else free(kernel);
  return status;
}

static OrtStatus *create_convolution(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  return (void)op, make_kernel(api, info, 1, out);
}

static OrtStatus *create_gradient(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
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

/** Where tap `tap` of the position `to` of the result looks along an axis; beyond `in` when it looks outside. */
static size_t place_of(const Geometry *at, int axis, size_t to, size_t tap) {
  const size_t place = to * at->stride[axis] + tap;
  return place < at->pad[axis] || place - at->pad[axis] >= at->in[axis] ? at->in[axis] : place - at->pad[axis];
}

/* The convolution: rows of what positions see, times panels of the kernel. */

typedef struct {
  const Kernel *kernel;
  const float *x, *panels, *starts;
  float *out;
  /** Whether rows are those of x: a position sees itself alone. */
  int is_direct;
  atomic_int failed;
} Convolution;

/** The kernel as panels of some outputs, each [taps * inputs][columns]. */
static void write_panels(const Kernel *kernel, const float *weights, float *panels) {
  const Geometry *at = &kernel->at;
  const size_t taps = taps_of(at), inner = taps * at->inputs, columns = kernel->products->columns;
  for (size_t first = 0; first < at->outputs; first += columns, panels += inner * columns) {
    const size_t count = smaller_of(columns, at->outputs - first);
    if (count < columns) memset(panels, 0, inner * columns * sizeof *panels);
    if (!kernel->reversed) {
      kernel->transpose(panels, columns, weights + first * inner, inner, count, inner);
      continue;
    }
    for (size_t tap = 0; tap < taps; tap++)
      for (size_t input = 0; input < at->inputs; input++)
        memcpy(panels + (tap * at->inputs + input) * columns,
               weights + (input * taps + taps - 1 - tap) * at->outputs + first, count * sizeof *panels);
  }
}

/** What a position of the result sees: [taps][inputs], zeros outside of x. */
static void write_row(const Geometry *at, const float *x, size_t position, float *row) {
  const size_t w = position % at->out[2], h = position / at->out[2] % at->out[1];
  const size_t d = position / (at->out[2] * at->out[1]) % at->out[0];
  const size_t item = position / (at->out[2] * at->out[1] * at->out[0]), inputs = at->inputs, width = at->size[2];
  const int is_inside = place_of(at, 2, w, 0) < at->in[2] && place_of(at, 2, w, width - 1) < at->in[2];
  for (size_t i = 0; i < at->size[0]; i++)
    for (size_t k = 0; k < at->size[1]; k++, row += width * inputs) {
      const size_t in_d = place_of(at, 0, d, i), in_h = place_of(at, 1, h, k);
      if (in_d == at->in[0] || in_h == at->in[1]) {
        memset(row, 0, width * inputs * sizeof *row);
        continue;
      }
      const float *line = x + ((item * at->in[0] + in_d) * at->in[1] + in_h) * at->in[2] * inputs;
      if (is_inside) {
        memcpy(row, line + place_of(at, 2, w, 0) * inputs, width * inputs * sizeof *row);
        continue;
      }
      for (size_t tap = 0; tap < width; tap++) {
        const size_t in_w = place_of(at, 2, w, tap);
        if (in_w == at->in[2]) memset(row + tap * inputs, 0, inputs * sizeof *row);
        else memcpy(row + tap * inputs, line + in_w * inputs, inputs * sizeof *row);
      }
    }
}

static void convolve_task(void *pointer, size_t task) {
  Convolution *run = pointer;
  const Geometry *at = &run->kernel->at;
  const Products *products = run->kernel->products;
  const size_t inner = taps_of(at) * at->inputs, last = smaller_of((task + 1) * TASK, positions_of(at));
  float *tile = aligned_alloc(64, parts_of(products->rows * inner, LINE) * LINE * sizeof *tile);
  if (tile == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  for (size_t first = task * TASK; first < last; first += products->rows) {
    const size_t rows = smaller_of(products->rows, last - first);
    const float *seen = run->x + first * inner;
    if (!run->is_direct || rows < products->rows) {
      seen = tile;
      for (size_t row = 0; row < products->rows; row++)
        write_row(at, run->x, first + (row < rows ? row : 0), tile + row * inner);
    }
    const float *panel = run->panels;
    for (size_t column = 0; column < at->outputs; column += products->columns, panel += inner * products->columns)
      products->multiply(run->out + first * at->outputs + column, at->outputs, rows,
                         smaller_of(products->columns, at->outputs - column), seen, inner, panel, inner,
                         run->starts + column);
  }
  free(tile);
}

static int is_direct(const Geometry *at) {
  int direct = 1;
  for (int axis = 0; axis < 3; axis++)
    direct = direct && at->size[axis] == 1 && at->stride[axis] == 1 && at->pad[axis] == 0 && at->in[axis] == at->out[axis];
  return direct;
}

static OrtStatus *convolve(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  const Geometry *at = &kernel->at;
  const size_t outputs = parts_of(at->outputs, kernel->products->columns) * kernel->products->columns;
  const size_t size = taps_of(at) * at->inputs * outputs;
  const float *weights, *bias = NULL;
  Convolution run = {.kernel = kernel, .is_direct = is_direct(at)};
  TRY(bind(kernel, context, &run.x, &weights, &run.out));
  if (kernel->biased) {
    OrtValue *value;
    TRY(ort_input(kernel->api, context, 2, &value));
    TRY(ort_data(kernel->api, value, (void **)&bias));
  }
  float *panels = take_memory(size + outputs);
  if (panels == NULL) return ort_create_status(kernel->api, "Convolution: out of memory");
  write_panels(kernel, weights, panels);
  memset(panels + size, 0, outputs * sizeof *panels);
  if (bias != NULL) memcpy(panels + size, bias, at->outputs * sizeof *panels);
  run.panels = panels;
  run.starts = panels + size;
  OrtStatus *status =
      ort_parallel_for(kernel->api, context, convolve_task, parts_of(positions_of(at), TASK), 0, &run);
  give_memory(panels);
  return status == NULL && atomic_load(&run.failed) ? ort_create_status(kernel->api, "Convolution: out of memory") : status;
}

/* The gradient of the kernel: positions are cut into shares, and each line of taps of each share is a task with its own sums. */

typedef struct {
  const Kernel *kernel;
  const float *x, *dy;
  float *sums, *out;
  /** Of a line of the result; of all lines; of a share. */
  size_t pieces_of_line, pieces, pieces_of_share, shares;
  /** Rows and columns of a tap's sums, filled up to whole tiles. */
  size_t rows, columns;
  atomic_int failed;
} Gradient;

/** Stretches of a block of pieces of lines that a tap sees. */
static size_t find_stretches(const Gradient *run, size_t first, size_t last, const size_t tap[3], Stretch *out) {
  const Geometry *at = &run->kernel->at;
  size_t count = 0;
  for (size_t piece = first; piece < last; piece++) {
    const size_t line = piece / run->pieces_of_line, h = line % at->out[1], d = line / at->out[1] % at->out[0];
    const size_t item = line / (at->out[1] * at->out[0]);
    const size_t in_d = place_of(at, 0, d, tap[0]), in_h = place_of(at, 1, h, tap[1]);
    if (in_d == at->in[0] || in_h == at->in[1]) continue;
    size_t from = piece % run->pieces_of_line * BLOCK, to = smaller_of(from + BLOCK, at->out[2]);
    while (from < to && place_of(at, 2, from, tap[2]) == at->in[2]) from++;
    while (from < to && place_of(at, 2, to - 1, tap[2]) == at->in[2]) to--;
    if (from == to) continue;
    const size_t in_line = ((item * at->in[0] + in_d) * at->in[1] + in_h) * at->in[2];
    out[count++] = (Stretch){run->dy + (line * at->out[2] + from) * at->outputs,
                             run->x + (in_line + place_of(at, 2, from, tap[2])) * at->inputs, to - from};
  }
  return count;
}

/** The part `count` of rows `stride` apart, from `offset` on, filled up with zeros to `width`. */
static void copy_rows(float *to, size_t width, const float *from, size_t stride, size_t offset, size_t count, size_t rows) {
  for (size_t row = 0; row < rows; row++, to += width, from += stride) {
    memcpy(to, from + offset, count * sizeof *to);
    memset(to + count, 0, (width - count) * sizeof *to);
  }
}

/** Adds a block's products to a tap's sums. `memory` holds a block of tiles that are not whole. */
static void add_block(const Gradient *run, const Stretch *stretches, size_t count, float *sums, float *memory) {
  const Geometry *at = &run->kernel->at;
  const Products *products = run->kernel->products;
  float *left = memory, *right = memory + BLOCK * products->rows;
  Stretch tile[MOST_STRETCHES];
  for (size_t column = 0; column < at->inputs; column += products->columns) {
    const size_t columns = smaller_of(products->columns, at->inputs - column);
    const size_t b_stride = columns == products->columns ? at->inputs * at->stride[2] : products->columns;
    for (size_t row = 0; row < at->outputs; row += products->rows) {
      const size_t rows = smaller_of(products->rows, at->outputs - row);
      const size_t a_stride = rows == products->rows ? at->outputs : products->rows;
      for (size_t i = 0, k = 0; i < count; k += stretches[i++].length) {
        const Stretch *from = stretches + i;
        tile[i] = (Stretch){from->a + row, from->b + column, from->length};
        if (rows < products->rows) {
          tile[i].a = left + k * products->rows;
          copy_rows(left + k * products->rows, products->rows, from->a, at->outputs, row, rows, from->length);
        }
        if (columns < products->columns) {
          tile[i].b = right + k * products->columns;
          if (row == 0)
            copy_rows(right + k * products->columns, products->columns, from->b, at->inputs * at->stride[2], column, columns,
                      from->length);
        }
      }
      products->add_products(sums + row * run->columns + column, run->columns, tile, count, a_stride, b_stride);
    }
  }
}

static void gradient_task(void *pointer, size_t task) {
  Gradient *run = pointer;
  const Geometry *at = &run->kernel->at;
  const Products *products = run->kernel->products;
  const size_t lines = at->size[0] * at->size[1], share = task / lines, line = task % lines, width = at->size[2];
  const size_t tap_sums = run->rows * run->columns;
  float *sums = run->sums + task * width * tap_sums;
  float *memory = aligned_alloc(64, BLOCK * (products->rows + products->columns) * sizeof *memory);
  if (memory == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  memset(sums, 0, width * tap_sums * sizeof *sums);
  const size_t last = smaller_of((share + 1) * run->pieces_of_share, run->pieces);
  const size_t pieces_of_block = larger_of(1, BLOCK / smaller_of(BLOCK, at->out[2]));
  for (size_t first = share * run->pieces_of_share; first < last; first += pieces_of_block)
    for (size_t w = 0; w < width; w++) {
      Stretch stretches[MOST_STRETCHES];
      const size_t tap[3] = {line / at->size[1], line % at->size[1], w};
      const size_t count = find_stretches(run, first, smaller_of(first + pieces_of_block, last), tap, stretches);
      if (count > 0) add_block(run, stretches, count, sums + w * tap_sums, memory);
    }
  free(memory);
}

/** One output's row of the kernel, [taps][inputs]: the sums of all shares, in their order. */
static void add_shares(void *pointer, size_t output) {
  const Gradient *run = pointer;
  const Geometry *at = &run->kernel->at;
  const size_t taps = taps_of(at), tap_sums = run->rows * run->columns;
  for (size_t tap = 0; tap < taps; tap++) {
    float *to = run->out + (output * taps + tap) * at->inputs;
    const float *from = run->sums + tap * tap_sums + output * run->columns;
    memcpy(to, from, at->inputs * sizeof *to);
    for (size_t share = 1; share < run->shares; share++) {
      from += taps * tap_sums;
      for (size_t i = 0; i < at->inputs; i++) to[i] += from[i];
    }
  }
}

static OrtStatus *gradient(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  const Geometry *at = &kernel->at;
  const Products *products = kernel->products;
  Gradient run = {.kernel = kernel};
  TRY(bind(kernel, context, &run.x, &run.dy, &run.out));
  run.pieces_of_line = parts_of(at->out[2], BLOCK);
  run.pieces = positions_of(at) / at->out[2] * run.pieces_of_line;
  const size_t wanted = smaller_of(MOST_SHARES, larger_of(1, positions_of(at) / SHARE));
  run.pieces_of_share = larger_of(1, parts_of(run.pieces, wanted));
  run.shares = larger_of(1, parts_of(run.pieces, run.pieces_of_share));
  run.rows = parts_of(at->outputs, products->rows) * products->rows;
  run.columns = parts_of(at->inputs, products->columns) * products->columns;
  run.sums = take_memory(run.shares * taps_of(at) * run.rows * run.columns);
  if (run.sums == NULL) return ort_create_status(kernel->api, "KernelGradient: out of memory");
  const size_t tasks = run.shares * at->size[0] * at->size[1];
  OrtStatus *status = ort_parallel_for(kernel->api, context, gradient_task, tasks, 0, &run);
  if (status == NULL) status = ort_parallel_for(kernel->api, context, add_shares, at->outputs, 0, &run);
  give_memory(run.sums);
  return status == NULL && atomic_load(&run.failed) ? ort_create_status(kernel->api, "KernelGradient: out of memory")
                                                    : status;
}

static const char *convolution_name(const OrtCustomOp *op) { return (void)op, "Convolution"; }
const OrtCustomOp convolution_operator = {
    FLOAT_OPERATOR, .name = convolution_name, .create_kernel_2 = create_convolution, .compute_2 = convolve, .destroy = free};

static const char *gradient_name(const OrtCustomOp *op) { return (void)op, "KernelGradient"; }
const OrtCustomOp kernel_gradient_operator = {
    FLOAT_OPERATOR, .name = gradient_name, .create_kernel_2 = create_gradient, .compute_2 = gradient, .destroy = free};
