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
 *   rounded    1 when operands are rounded to bfloat16, for processors that multiply such numbers; sums are float32. Neighbouring
 *              channels are pairs in the convolution, neighbouring positions in the gradient; a 0 ends those of odd number
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
/** Positions that are rounded at once. */
enum { ROUNDED = 1024 };
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
  int biased, reversed, rounded;
  /** Rows and columns of a tile. */
  size_t rows, columns;
} Kernel;

static size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger_of(size_t a, size_t b) { return a > b ? a : b; }
static size_t parts_of(size_t whole, size_t part) { return (whole + part - 1) / part; }
static size_t taps_of(const Geometry *at) { return at->size[0] * at->size[1] * at->size[2]; }
static size_t seen_of(const Geometry *at) { return at->items * at->in[0] * at->in[1] * at->in[2]; }
static size_t pairs_of(size_t count) { return parts_of(count, 2); }
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

static OrtStatus *read_rounding(Kernel *kernel, const OrtInfo *info) {
  int64_t rounded = 0;
  size_t one = 1;
  TRY(ort_integers(kernel->api, info, "rounded", &rounded, &one));
  if (rounded != 0 && !multiplies_bfloat16())
    return ort_create_status(kernel->api, "Convolution: this processor multiplies no bfloat16");
  kernel->rounded = rounded != 0;
  kernel->rows = kernel->rounded ? rounded_products.rows : kernel->products->rows;
  kernel->columns = kernel->rounded ? rounded_products.columns : kernel->products->columns;
  return NULL;
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
  if (status == NULL) status = read_rounding(kernel, info);
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
  /** The kernel's geometry; where operands are rounded, inputs are pairs of channels, and x and panels hold pairs. */
  Geometry at;
  const float *x, *panels, *starts;
  float *out;
  /** Where operands are rounded: x before that. */
  const float *given;
  /** Whether rows are those of x: a position sees itself alone. */
  int is_direct;
  atomic_int failed;
} Convolution;

/** A panel of the kernel: outputs from `first` on, [taps * inputs][columns]. */
static void write_panel(const Kernel *kernel, const float *weights, size_t first, float *panel) {
  const Geometry *at = &kernel->at;
  const size_t taps = taps_of(at), inner = taps * at->inputs, columns = kernel->columns;
  const size_t count = smaller_of(columns, at->outputs - first);
  if (count < columns) memset(panel, 0, inner * columns * sizeof *panel);
  if (!kernel->reversed) {
    kernel->transpose(panel, columns, weights + first * inner, inner, count, inner);
    return;
  }
  for (size_t tap = 0; tap < taps; tap++)
    for (size_t input = 0; input < at->inputs; input++)
      memcpy(panel + (tap * at->inputs + input) * columns,
             weights + (input * taps + taps - 1 - tap) * at->outputs + first, count * sizeof *panel);
}

/** All panels. Where they are rounded, `memory` holds one before that; pairs are of a tap's inputs. */
static void write_panels(const Kernel *kernel, const float *weights, float *panels, float *memory) {
  const Geometry *at = &kernel->at;
  const size_t taps = taps_of(at), columns = kernel->columns, tap_pairs = pairs_of(at->inputs) * columns;
  for (size_t first = 0; first < at->outputs; first += columns) {
    if (!kernel->rounded) {
      write_panel(kernel, weights, first, panels);
      panels += taps * at->inputs * columns;
      continue;
    }
    write_panel(kernel, weights, first, memory);
    for (size_t tap = 0; tap < taps; tap++, panels += tap_pairs)
      rounded_products.write_panels((Pair *)panels, tap_pairs, memory + tap * at->inputs * columns, columns, at->inputs,
                                    smaller_of(columns, at->outputs - first));
  }
}

/** Rounds numbers that lie side by side, and writes no more than their pairs. */
static void round_numbers(Pair *out, const float *in, size_t count) {
  const size_t whole = count / (2 * LINE) * 2 * LINE;
  Pair rest[LINE];
  rounded_products.write_rows(out, 0, in, 0, 1, whole);
  if (whole == count) return;
  rounded_products.write_rows(rest, 0, in + whole, 0, 1, count - whole);
  memcpy(out + whole / 2, rest, pairs_of(count - whole) * sizeof *rest);
}

/** Rounds some positions of x, once for all taps that see them. */
static void round_task(void *pointer, size_t task) {
  Convolution *run = pointer;
  const size_t inputs = run->kernel->at.inputs, pairs = run->at.inputs, first = task * ROUNDED;
  const size_t count = smaller_of(ROUNDED, seen_of(&run->at) - first);
  const float *in = run->given + first * inputs;
  Pair *out = (Pair *)run->x + first * pairs;
  if (inputs % 2 == 0) round_numbers(out, in, count * inputs);
  else
    for (size_t i = 0; i < count; i++) round_numbers(out + i * pairs, in + i * inputs, inputs);
}

/** Multiplies a tile of what positions see and a panel. */
static void multiply_tile(const Convolution *run, size_t position, size_t column, size_t rows, const float *seen,
                          const float *panel) {
  const size_t inner = taps_of(&run->at) * run->at.inputs, outputs = run->at.outputs;
  const size_t columns = smaller_of(run->kernel->columns, outputs - column);
  float *out = run->out + position * outputs + column;
  if (run->kernel->rounded)
    rounded_products.multiply(out, outputs, rows, columns, (const Pair *)seen, inner, (const Pair *)panel, inner,
                              run->starts + column);
  else run->kernel->products->multiply(out, outputs, rows, columns, seen, inner, panel, inner, run->starts + column);
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
  const Geometry *at = &run->at;
  const size_t tile_rows = run->kernel->rows, columns = run->kernel->columns;
  const size_t inner = taps_of(at) * at->inputs, last = smaller_of((task + 1) * TASK, positions_of(at));
  float *tile = aligned_alloc(64, parts_of(tile_rows * inner, LINE) * LINE * sizeof *tile);
  if (tile == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  for (size_t first = task * TASK; first < last; first += tile_rows) {
    const size_t rows = smaller_of(tile_rows, last - first);
    const float *seen = run->x + first * inner;
    if (!run->is_direct || rows < tile_rows) {
      seen = tile;
      for (size_t row = 0; row < tile_rows; row++)
        write_row(at, run->x, first + (row < rows ? row : 0), tile + row * inner);
    }
    const float *panel = run->panels;
    for (size_t column = 0; column < at->outputs; column += columns, panel += inner * columns)
      multiply_tile(run, first, column, rows, seen, panel);
  }
  free(tile);
}

static int is_direct(const Geometry *at) {
  int direct = 1;
  for (int axis = 0; axis < 3; axis++)
    direct = direct && at->size[axis] == 1 && at->stride[axis] == 1 && at->pad[axis] == 0 && at->in[axis] == at->out[axis];
  return direct;
}

static OrtStatus *run_convolution(Convolution *run, OrtContext *context) {
  OrtApi *api = run->kernel->api;
  if (run->kernel->rounded)
    TRY(ort_parallel_for(api, context, round_task, parts_of(seen_of(&run->at), ROUNDED), 0, run));
  TRY(ort_parallel_for(api, context, convolve_task, parts_of(positions_of(&run->at), TASK), 0, run));
  return atomic_load(&run->failed) ? ort_create_status(api, "Convolution: out of memory") : NULL;
}

static OrtStatus *convolve(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  const Geometry *at = &kernel->at;
  const float *weights, *bias = NULL;
  Convolution run = {.kernel = kernel, .at = *at, .is_direct = is_direct(at)};
  TRY(bind(kernel, context, &run.given, &weights, &run.out));
  if (kernel->biased) {
    OrtValue *value;
    TRY(ort_input(kernel->api, context, 2, &value));
    TRY(ort_data(kernel->api, value, (void **)&bias));
  }
  if (kernel->rounded) run.at.inputs = pairs_of(at->inputs);
  const size_t outputs = parts_of(at->outputs, kernel->columns) * kernel->columns;
  const size_t size = taps_of(at) * run.at.inputs * outputs;
  const size_t panel = kernel->rounded ? taps_of(at) * at->inputs * kernel->columns : 0;
  float *panels = take_memory(size + outputs + panel + (kernel->rounded ? seen_of(at) * run.at.inputs : 0));
  if (panels == NULL) return ort_create_status(kernel->api, "Convolution: out of memory");
  float *starts = panels + size, *memory = starts + outputs;
  write_panels(kernel, weights, panels, memory);
  memset(starts, 0, outputs * sizeof *starts);
  if (bias != NULL) memcpy(starts, bias, at->outputs * sizeof *starts);
  run.panels = panels;
  run.starts = starts;
  run.x = kernel->rounded ? memory + panel : run.given;
  OrtStatus *status = run_convolution(&run, context);
  give_memory(panels);
  return status;
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

/** As `add_block`, of rounded numbers: `memory` holds panels of the block, which pair neighbours within a stretch. */
static void add_rounded_block(const Gradient *run, const Stretch *stretches, size_t count, float *sums, Pair *memory) {
  const Geometry *at = &run->kernel->at;
  const size_t rows = run->kernel->rows, columns = run->kernel->columns, panel = BLOCK * columns;
  Pair *left = memory, *right = memory + parts_of(at->outputs, columns) * panel;
  size_t pairs = 0;
  for (const Stretch *from = stretches; from < stretches + count; pairs += pairs_of(from++->length)) {
    rounded_products.write_panels(left + pairs * columns, panel, from->a, at->outputs, from->length, at->outputs);
    rounded_products.write_panels(right + pairs * columns, panel, from->b, at->inputs * at->stride[2], from->length,
                                  at->inputs);
  }
  for (size_t column = 0; column < at->inputs; column += columns)
    for (size_t row = 0; row < at->outputs; row += rows)
      rounded_products.add_products(sums + row * run->columns + column, run->columns,
                                    left + row / columns * panel + row % columns, right + column / columns * panel, pairs);
}

/** Memory for a block: panels of pairs, at most one for each position; or tiles that are not whole. */
static size_t block_memory(const Kernel *kernel) {
  const size_t columns = kernel->columns;
  if (!kernel->rounded) return BLOCK * (kernel->rows + columns);
  return BLOCK * columns * (parts_of(kernel->at.outputs, columns) + parts_of(kernel->at.inputs, columns));
}

static void gradient_task(void *pointer, size_t task) {
  Gradient *run = pointer;
  const Geometry *at = &run->kernel->at;
  const size_t lines = at->size[0] * at->size[1], share = task / lines, line = task % lines, width = at->size[2];
  const size_t tap_sums = run->rows * run->columns;
  float *sums = run->sums + task * width * tap_sums;
  float *memory = aligned_alloc(64, block_memory(run->kernel) * sizeof *memory);
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
      if (count == 0) continue;
      if (run->kernel->rounded) add_rounded_block(run, stretches, count, sums + w * tap_sums, (Pair *)memory);
      else add_block(run, stretches, count, sums + w * tap_sums, memory);
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
  Gradient run = {.kernel = kernel};
  TRY(bind(kernel, context, &run.x, &run.dy, &run.out));
  run.pieces_of_line = parts_of(at->out[2], BLOCK);
  run.pieces = positions_of(at) / at->out[2] * run.pieces_of_line;
  const size_t wanted = smaller_of(MOST_SHARES, larger_of(1, positions_of(at) / SHARE));
  run.pieces_of_share = larger_of(1, parts_of(run.pieces, wanted));
  run.shares = larger_of(1, parts_of(run.pieces, run.pieces_of_share));
  run.rows = parts_of(at->outputs, kernel->rows) * kernel->rows;
  run.columns = parts_of(at->inputs, kernel->columns) * kernel->columns;
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
