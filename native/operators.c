/* What the operators share, and the list of them that TypeScript asks for. */
#include "operators.h"
#include "tile.h"

#include <stdatomic.h>
#include <stdlib.h>

const char *on_cpu(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
int is_float(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ORT_FLOAT; }
int is_variadic(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ORT_VARIADIC; }
int in_host_memory(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }
size_t one_kind(const OrtCustomOp *op) { return (void)op, 1; }
int at_least_one(const OrtCustomOp *op) { return (void)op, 1; }
int any_version(const OrtCustomOp *op) { return (void)op, INT32_MAX; }

/** Which of x86-64-v1 to v4 this machine has whole. Itself of the first, so that every machine can ask. */
__attribute__((visibility("default"))) int zoetrope_level(void) {
  __builtin_cpu_init();
  /* For tests: a lower level than the machine has. */
  const char *limit = getenv("ZOETROPE_CPU_LEVEL");
  const int highest = limit == NULL ? 4 : atoi(limit);
  if (highest >= 4 && __builtin_cpu_supports("x86-64-v4")) return 4;
  if (highest >= 3 && __builtin_cpu_supports("x86-64-v3")) return 3;
  return highest >= 2 && __builtin_cpu_supports("x86-64-v2") ? 2 : 1;
}

int multiplies_bfloat16(void) { return zoetrope_level() == 4 && __builtin_cpu_supports("avx512bf16"); }

/** Whether the operators that round to bfloat16 can be used. */
__attribute__((visibility("default"))) int zoetrope_bfloat16(void) { return multiplies_bfloat16(); }

const Level *best_level(void) {
  const int number = zoetrope_level();
  return number == 4 ? &level_v4 : number == 3 ? &level_v3 : &level_v2;
}

/** Sizes of a value and the number of its elements. */
OrtStatus *read_sizes(OrtApi *api, const OrtValue *value, Sizes *out) {
  OrtShape *shape;
  TRY(ort_shape(api, value, &shape));
  OrtStatus *status = ort_elements(api, shape, &out->elements);
  if (status == NULL) status = ort_rank(api, shape, &out->rank);
  if (status == NULL && out->rank > MOST_AXES) status = ort_create_status(api, "an operand of more than 8 axes");
  if (status == NULL) status = ort_sizes(api, shape, out->sizes, out->rank);
  ort_release_shape(api, shape);
  return status;
}

OrtStatus *read_integers(OrtApi *api, const OrtInfo *info, const char *name, int64_t **out, size_t *count) {
  *count = 0;
  TRY(ort_integers(api, info, name, NULL, count));
  *out = malloc((*count + 1) * sizeof **out);
  if (*out == NULL) return ort_create_status(api, "out of memory");
  return ort_integers(api, info, name, *out, count);
}

static _Atomic(float *) spare;
/** Floats in front of memory for work; the first few bytes say how many follow. */
enum { HEAD = 16 };

float *take_memory(size_t floats) {
  float *block = atomic_exchange(&spare, NULL);
  if (block == NULL || *(size_t *)block < floats) {
    free(block);
    block = aligned_alloc(64, (2 * HEAD + floats) / HEAD * HEAD * sizeof *block);
    if (block == NULL) return NULL;
    *(size_t *)block = floats;
  }
  return block + HEAD;
}

void give_memory(float *memory) { free(atomic_exchange(&spare, memory - HEAD)); }

/** Gives back the block that is kept between operators. */
__attribute__((visibility("default"))) void zoetrope_trim(void) { free(atomic_exchange(&spare, NULL)); }

/** The operators, to be added to a domain; NULL after the last, and on machines without x86-64-v2, which could not run them. */
__attribute__((visibility("default"))) const OrtCustomOp *zoetrope_operator(size_t index) {
  const OrtCustomOp *const operators[] = {&fused_operator, &transposed_operator, &convolution_operator,
                                          &kernel_gradient_operator, &attention_operator, &attention_gradient_operator,
                                          &rounded_product_operator, &rounded_sums_operator, &square_operator,
                                          &column_sums_operator};
  return zoetrope_level() >= 2 && index < sizeof operators / sizeof *operators ? operators[index] : NULL;
}
