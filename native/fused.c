/*
 * The operator `zoetrope::Fused`: a chain of elementwise operations and sums over rows, run tile by tile, so that what it
 * makes in between never leaves the cache of a core. Tiles are shared out to the threads of ONNX Runtime; where they begin
 * does not depend on their number, nor do the results.
 *
 * Attributes, written by `src/executors/onnx/fused/code.ts`:
 *   space      rows, width; rows 0: as many as the first full input has elements (width is then 1)
 *   inputs     for each: extent, divisor, modulus, stride, offset. Row r of the tile space reads row (r / divisor) % modulus of the
 *              input, modulus 0 being none. Rows begin `stride` elements after each other, the first at `offset`
 *   constants  scalars
 *   registers  extent of each register: inputs, constants, working registers, outputs
 *   code       for each instruction: opcode, extent, to, a, b, c
 *   outputs    for each: rank and sizes; rank -1: the shape of the first full input
 */
#include "operators.h"
#include "tile.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/** Elements of a tile, unless a row is longer: a dozen registers fit the first cache; of what a thread takes; of a line. */
enum { TILE = 512, TASK = 16384, LINE = 16 };

typedef struct {
  int extent;
  size_t divisor, modulus, stride, offset;
} Input;

typedef struct {
  OrtApi *api;
  TileRunner *run;
  size_t rows, width, rows_per_tile;
  size_t input_count, constant_count, register_count, code_count, output_count, output_integers;
  Input *inputs;
  float *constants;
  uint8_t *extents;
  /** Instructions on scalars, which run once for many tiles, are the first. */
  Instruction *code;
  size_t scalar_code;
  int64_t *outputs;
  /** Where each register is in a task's memory, and how long that is, in floats. */
  size_t *places, memory;
} Kernel;

/** One run of a kernel. */
typedef struct {
  const Kernel *kernel;
  const float **inputs;
  float **outputs;
  size_t rows, rows_per_task;
  atomic_int failed;
} Run;

static void destroy(void *pointer) {
  Kernel *kernel = pointer;
  free(kernel->inputs);
  free(kernel->constants);
  free(kernel->extents);
  free(kernel->code);
  free(kernel->outputs);
  free(kernel->places);
  free(kernel);
}

/** Whether tiles of an input are read where they are: each row of it once, one after the other, or one value. */
static int is_whole(const Kernel *kernel, const Input *input) {
  const size_t length = input->extent == FULL ? kernel->width : 1;
  return input->extent == SCALAR || (input->divisor == 1 && input->modulus == 0 && input->stride == length);
}

static OrtStatus *read_inputs(Kernel *kernel, const OrtInfo *info) {
  int64_t *values = NULL;
  size_t count;
  OrtStatus *status = read_integers(kernel->api, info, "inputs", &values, &count);
  if (status == NULL) {
    kernel->input_count = count / 5;
    kernel->inputs = calloc(kernel->input_count + 1, sizeof *kernel->inputs);
    for (size_t i = 0; kernel->inputs != NULL && i < kernel->input_count; i++)
      kernel->inputs[i] = (Input){(int)values[5 * i], (size_t)values[5 * i + 1], (size_t)values[5 * i + 2],
                                  (size_t)values[5 * i + 3], (size_t)values[5 * i + 4]};
  }
  free(values);
  return status;
}

static OrtStatus *read_constants(Kernel *kernel, const OrtInfo *info) {
  OrtApi *api = kernel->api;
  TRY(ort_floats(api, info, "constants", NULL, &kernel->constant_count));
  kernel->constants = calloc(kernel->constant_count + 1, sizeof *kernel->constants);
  if (kernel->constants == NULL) return NULL;
  return ort_floats(api, info, "constants", kernel->constants, &kernel->constant_count);
}

static OrtStatus *read_registers(Kernel *kernel, const OrtInfo *info) {
  int64_t *values = NULL;
  OrtStatus *status = read_integers(kernel->api, info, "registers", &values, &kernel->register_count);
  if (status == NULL) kernel->extents = calloc(kernel->register_count + 1, 1);
  for (size_t i = 0; status == NULL && kernel->extents != NULL && i < kernel->register_count; i++)
    kernel->extents[i] = (uint8_t)values[i];
  free(values);
  return status;
}

static OrtStatus *read_code(Kernel *kernel, const OrtInfo *info) {
  int64_t *values = NULL;
  size_t count;
  OrtStatus *status = read_integers(kernel->api, info, "code", &values, &count);
  if (status == NULL) {
    kernel->code = calloc(count / 6 + 1, sizeof *kernel->code);
    for (int scalars = 1; kernel->code != NULL && scalars >= 0; scalars--) {
      for (const int64_t *v = values; v + 6 <= values + count; v += 6)
        if ((v[1] == SCALAR) == scalars)
          kernel->code[kernel->code_count++] =
              (Instruction){(int)v[0], (int)v[1], (int)v[2], (int)v[3], (int)v[4], (int)v[5]};
      if (scalars) kernel->scalar_code = kernel->code_count;
    }
  }
  free(values);
  return status;
}

/** Gives each register its place: a tile, a value for each of its rows, or one value. */
static OrtStatus *place_registers(Kernel *kernel) {
  kernel->rows_per_tile = kernel->width < TILE ? TILE / kernel->width : 1;
  kernel->places = calloc(kernel->register_count + 1, sizeof *kernel->places);
  if (kernel->places == NULL) return ort_create_status(kernel->api, "Fused: out of memory");
  for (size_t i = 0; i < kernel->register_count; i++) {
    const size_t rows = kernel->extents[i] == SCALAR ? 1 : kernel->rows_per_tile;
    const size_t length = rows * (kernel->extents[i] == FULL ? kernel->width : 1);
    const int is_elsewhere = (i < kernel->input_count && is_whole(kernel, kernel->inputs + i)) ||
                             (i >= kernel->register_count - kernel->output_count && kernel->extents[i] != SCALAR);
    kernel->places[i] = kernel->memory;
    if (!is_elsewhere) kernel->memory += (length + LINE - 1) / LINE * LINE;
  }
  return NULL;
}

static OrtStatus *read_kernel(Kernel *kernel, const OrtInfo *info) {
  OrtApi *api = kernel->api;
  int64_t space[2];
  size_t two = 2;
  TRY(ort_integers(api, info, "space", space, &two));
  kernel->rows = (size_t)space[0];
  kernel->width = (size_t)space[1];
  TRY(read_inputs(kernel, info));
  TRY(read_constants(kernel, info));
  TRY(read_registers(kernel, info));
  TRY(read_code(kernel, info));
  TRY(read_integers(api, info, "outputs", &kernel->outputs, &kernel->output_integers));
  for (size_t i = 0; i < kernel->output_integers; kernel->output_count++)
    i += 1 + (kernel->outputs[i] < 0 ? 0 : (size_t)kernel->outputs[i]);
  if (kernel->inputs == NULL || kernel->constants == NULL || kernel->extents == NULL || kernel->code == NULL)
    return ort_create_status(api, "Fused: out of memory");
  const size_t fixed = kernel->input_count + kernel->constant_count + kernel->output_count;
  int fits = kernel->width > 0 && fixed <= kernel->register_count;
  for (size_t i = 0; i < kernel->code_count; i++) {
    const Instruction *at = kernel->code + i;
    const int count = (int)kernel->register_count;
    fits = fits && at->op >= 0 && at->op < OPCODES && at->to >= 0 && at->to < count && at->a >= 0 && at->a < count &&
           at->b >= 0 && at->b < count && at->c >= 0 && at->c < count;
  }
  return fits ? place_registers(kernel) : ort_create_status(api, "Fused: attributes that do not fit together");
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi *api, const OrtInfo *info, void **out) {
  (void)op;
  Kernel *kernel = calloc(1, sizeof *kernel);
  if (kernel == NULL) return ort_create_status(api, "Fused: out of memory");
  kernel->api = api;
  kernel->run = best_level()->run;
  OrtStatus *status = read_kernel(kernel, info);
  if (status == NULL) *out = kernel;
  else destroy(kernel);
  return status;
}

static size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }

/** Where a tile's rows of an input are; in `copy` if they are not next to each other in memory. */
static float *gather_rows(const Kernel *kernel, const Input *input, const float *data, size_t row, size_t rows,
                          float *copy) {
  const size_t length = input->extent == FULL ? kernel->width : 1;
  if (input->stride == length && input->divisor == 1 && (input->modulus == 0 || row % input->modulus + rows <= input->modulus))
    return (float *)data + (input->modulus == 0 ? row : row % input->modulus) * length;
  for (size_t i = 0; i < rows; i++) {
    const size_t place = input->modulus == 0 ? row + i : (row + i) / input->divisor % input->modulus;
    const float *from = data + place * input->stride + input->offset;
    if (length == 1) copy[i] = *from;
    else memcpy(copy + i * length, from, length * sizeof *copy);
  }
  return copy;
}

static void run_task(void *pointer, size_t task) {
  Run *run = pointer;
  const Kernel *kernel = run->kernel;
  const size_t registers = kernel->register_count, inputs = kernel->input_count, width = kernel->width;
  float *memory = aligned_alloc(64, (kernel->memory + LINE) * sizeof *memory);
  if (memory == NULL) {
    atomic_store(&run->failed, 1);
    return;
  }
  float *at[registers];
  for (size_t i = 0; i < registers; i++) at[i] = memory + kernel->places[i];
  for (size_t i = 0; i < inputs; i++)
    if (kernel->inputs[i].extent == SCALAR) at[i] = (float *)run->inputs[i];
  for (size_t i = 0; i < kernel->constant_count; i++) *at[inputs + i] = kernel->constants[i];
  for (size_t i = 0; i < kernel->output_count; i++) {
    const size_t output = registers - kernel->output_count + i;
    if (task == 0 && kernel->extents[output] == SCALAR) at[output] = run->outputs[i];
  }
  kernel->run(kernel->code, kernel->scalar_code, at, kernel->extents, 1, 1);

  const size_t first = task * run->rows_per_task;
  const size_t last = smaller_of(run->rows, first + run->rows_per_task);
  for (size_t row = first; row < last; row += kernel->rows_per_tile) {
    const size_t rows = smaller_of(kernel->rows_per_tile, last - row);
    for (size_t i = 0; i < inputs; i++) {
      const Input *input = kernel->inputs + i;
      /* One row for all stays as it is: the last tile has no more rows than the first. */
      if (input->extent != SCALAR && (input->modulus != 1 || row == first))
        at[i] = gather_rows(kernel, input, run->inputs[i], row, rows, memory + kernel->places[i]);
    }
    for (size_t i = 0; i < kernel->output_count; i++) {
      const size_t output = registers - kernel->output_count + i;
      if (kernel->extents[output] != SCALAR)
        at[output] = run->outputs[i] + row * (kernel->extents[output] == FULL ? width : 1);
    }
    kernel->run(kernel->code + kernel->scalar_code, kernel->code_count - kernel->scalar_code, at, kernel->extents, rows,
                width);
  }
  free(memory);
}

static OrtStatus *bind(const Kernel *kernel, OrtContext *context, Run *run) {
  OrtApi *api = kernel->api;
  Sizes given = {0};
  for (size_t i = 0; i < kernel->input_count; i++) {
    OrtValue *value;
    TRY(ort_input(api, context, i, &value));
    TRY(ort_data(api, value, (void **)&run->inputs[i]));
    if (run->rows == 0 && kernel->inputs[i].extent == FULL) {
      TRY(read_sizes(api, value, &given));
      run->rows = given.elements;
    }
  }
  const int64_t *sizes = kernel->outputs;
  for (size_t i = 0; i < kernel->output_count; i++) {
    OrtValue *value;
    const int64_t rank = *sizes++;
    if (rank < 0) TRY(ort_output(api, context, i, given.sizes, given.rank, &value));
    else TRY(ort_output(api, context, i, sizes, (size_t)rank, &value));
    TRY(ort_data(api, value, (void **)&run->outputs[i]));
    if (rank > 0) sizes += rank;
  }
  return NULL;
}

static OrtStatus *compute(void *pointer, OrtContext *context) {
  const Kernel *kernel = pointer;
  const float *inputs[kernel->input_count + 1];
  float *outputs[kernel->output_count + 1];
  Run run = {kernel, inputs, outputs, kernel->rows, kernel->rows_per_tile, 0};
  TRY(bind(kernel, context, &run));
  const size_t tile = kernel->rows_per_tile * kernel->width;
  if (tile < TASK) run.rows_per_task *= TASK / tile;
  const size_t tasks = (run.rows + run.rows_per_task - 1) / run.rows_per_task;
  if (tasks == 1) run_task(&run, 0);
  else TRY(ort_parallel_for(kernel->api, context, run_task, tasks, 0, &run));
  return atomic_load(&run.failed) ? ort_create_status(kernel->api, "Fused: out of memory") : NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "Fused"; }
const OrtCustomOp fused_operator = {FLOAT_OPERATOR, .name = name, .create_kernel_2 = create, .compute_2 = compute, .destroy = destroy};
