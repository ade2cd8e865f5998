/* The operators of this library. */
#ifndef ZOETROPE_OPERATORS_H
#define ZOETROPE_OPERATORS_H

#include "ort.h"

extern const OrtCustomOp fused_operator, transposed_operator, convolution_operator, kernel_gradient_operator,
    attention_operator, attention_gradient_operator, rounded_product_operator, rounded_sums_operator,
    square_operator, column_sums_operator;

enum { MOST_AXES = 8 };

/** A value's shape. */
typedef struct {
  size_t elements, rank;
  int64_t sizes[MOST_AXES];
} Sizes;

/** Reads the shape of a value. */
OrtStatus *read_sizes(OrtApi *api, const OrtValue *value, Sizes *out);

/** Reads a list of integers; the caller frees it. */
OrtStatus *read_integers(OrtApi *api, const OrtInfo *info, const char *name, int64_t **out, size_t *count);

/**
 * Memory to work in, in lines of the cache; NULL when there is none. One block is kept for the next operator: fresh pages would
 * cost more than what is written to them.
 */
float *take_memory(size_t floats);
void give_memory(float *memory);

/** What all have in common: any number of float tensors in and out, on the CPU. */
const char *on_cpu(const OrtCustomOp *op);
int is_float(const OrtCustomOp *op, size_t index);
int is_variadic(const OrtCustomOp *op, size_t index);
int in_host_memory(const OrtCustomOp *op, size_t index);
size_t one_kind(const OrtCustomOp *op);
int at_least_one(const OrtCustomOp *op);
int any_version(const OrtCustomOp *op);
#define FLOAT_OPERATOR \
  .version = ORT_VERSION_USED, .provider = on_cpu, .input_type = is_float, .input_count = one_kind, \
  .output_type = is_float, .output_count = one_kind, .input_kind = is_variadic, .output_kind = is_variadic, \
  .input_memory = in_host_memory, .least_inputs = at_least_one, .inputs_of_one_type = at_least_one, \
  .least_outputs = at_least_one, .outputs_of_one_type = at_least_one, .first_version = at_least_one, \
  .last_version = any_version

#define TRY(call) \
  do { \
    OrtStatus *status = (call); \
    if (status != NULL) return status; \
  } while (0)

#endif
