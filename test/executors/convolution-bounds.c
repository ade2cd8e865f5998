/*
 * Runs `native/convolution.c`, rounded, over operands, results and working memory that end where memory ends: what reads or
 * writes beyond ends this process. All memory is full of numbers that are none: returns 0, printing nothing, if no result is.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, MOST = 4096 };

static struct {
  void *start;
  size_t bytes;
} taken[MOST];
static size_t taken_count;

/** Memory of so many floats, the last one in front of a page that nobody may touch. */
static float *take(size_t floats) {
  const size_t bytes = floats * sizeof(float), held = (bytes + PAGE - 1) / PAGE * PAGE;
  char *start = mmap(NULL, held + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + held, PAGE, PROT_NONE) != 0 || taken_count == MOST) exit(2);
  taken[taken_count].start = start;
  taken[taken_count++].bytes = held + PAGE;
  return memset(start + held - bytes, 0xff, bytes);
}

/* Threads' memory is such memory, too, until a check ends. */
#define aligned_alloc(alignment, bytes) ((void *)take((bytes) / sizeof(float)))
#define free(memory) ((void)(memory))
#include "../../native/convolution.c"

/* What the operator asks of ONNX Runtime and of `operators.c`: a value is its own data, one thread runs all tasks. */
static float *values[3];
static OrtStatus *get_input(const OrtContext *context, size_t index, OrtValue **out) {
  return (void)context, *out = (OrtValue *)values[index], NULL;
}
static OrtStatus *get_output(OrtContext *context, size_t index, const int64_t *sizes, size_t rank, OrtValue **out) {
  return (void)context, (void)index, (void)sizes, (void)rank, *out = (OrtValue *)values[2], NULL;
}
static OrtStatus *get_data(OrtValue *value, void **out) { return *out = value, NULL; }
static OrtStatus *run_tasks(const OrtContext *context, void (*task)(void *, size_t), size_t tasks, size_t batch, void *run) {
  for (size_t i = 0; i < tasks; i++) task(run, i);
  return (void)context, (void)batch, NULL;
}
static void *const api[275] = {[51] = get_data, [90] = get_input, [91] = get_output, [274] = run_tasks};

const Level *best_level(void) { return &level_v4; }
int multiplies_bfloat16(void) { return 1; }
float *take_memory(size_t floats) { return take(floats); }
void give_memory(float *memory) { (void)memory; }
OrtStatus *read_integers(OrtApi *table, const OrtInfo *info, const char *name, int64_t **out, size_t *count) {
  (void)table, (void)info, (void)name, (void)out, (void)count;
  exit(2);
}
const char *on_cpu(const OrtCustomOp *op) { return (void)op, ""; }
int is_float(const OrtCustomOp *op, size_t index) { return (void)op, (int)index; }
int is_variadic(const OrtCustomOp *op, size_t index) { return (void)op, (int)index; }
int in_host_memory(const OrtCustomOp *op, size_t index) { return (void)op, (int)index; }
size_t one_kind(const OrtCustomOp *op) { return (void)op, 1; }
int at_least_one(const OrtCustomOp *op) { return (void)op, 1; }
int any_version(const OrtCustomOp *op) { return (void)op, 1; }

static float *operand(size_t floats) {
  float *out = take(floats);
  for (size_t i = 0; i < floats; i++) out[i] = (float)(i % 7) - 3;
  return out;
}

/** Runs an operator over x and another operand, in memory of their sizes. */
static void check(OrtStatus *(*compute)(void *, OrtContext *), Kernel kernel, size_t other, size_t result) {
  values[0] = operand(seen_of(&kernel.at) * kernel.at.inputs);
  values[1] = operand(other);
  values[2] = take(result);
  compute(&kernel, NULL);
  for (size_t i = 0; i < result; i++)
    if (isnan(values[2][i])) exit(1);
  while (taken_count > 0) taken_count--, munmap(taken[taken_count].start, taken[taken_count].bytes);
}

static void check_all(size_t height, size_t width, size_t taps, size_t inputs, size_t outputs) {
  Kernel kernel = {.api = api, .products = level_v4.products, .transpose = level_v4.transpose, .rounded = 1};
  kernel.rows = rounded_products.rows, kernel.columns = rounded_products.columns;
  kernel.at = (Geometry){1, {1, height, width}, inputs, {1, height, width}, outputs,
                         {1, taps, taps}, {1, 1, 1}, {0, taps - 1, taps / 2}};
  const size_t weights = outputs * taps * taps * inputs, result = height * width * outputs;
  check(convolve, kernel, weights, result);
  kernel.reversed = 1;
  check(convolve, kernel, weights, result);
  check(gradient, kernel, result, weights);
}

int main(void) {
  const size_t channels[] = {1, 3, 8, 31, 33, 64, 70}, count = sizeof channels / sizeof *channels;
  for (size_t i = 0; i < count; i++)
    for (size_t j = 0; j < count; j++) {
      check_all(1, 1, 1, channels[i], channels[j]);
      check_all(5, 7, 1, channels[i], channels[j]);
      check_all(3, 67, 3, channels[i], channels[j]);
      check_all(13, 1, 3, channels[i], channels[j]);
    }
  return 0;
}
