/* Stands in for cuBLASLt where there is no GPU: products by plain loops over the host's memory, column-major, with the
   epilogues that the executor asks for. Of f8e4m3 it multiplies a^T b, as Hopper's does, in lines of 16 bytes. It has no algorithm for an epilogue on a result of 7 rows, nor for a second
   result whose columns are no multiple of 8 elements apart. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { none = 1, bias = 4, bias_gelu = 36, bias_gelu_keeping_sum = 164 };
enum { f32 = 0, bf16 = 14, e4m3 = 28 };
enum { invalid = 7, unsupported = 15 };

struct operation {
  int compute, transpose_a, transpose_b, epilogue;
  void *bias, *sum;
  int64_t sum_leading;
  char is_fast;
};
struct layout {
  int type;
  int64_t rows, columns, leading, stride;
  int batch;
};

int cublasLtCreate(void **handle) { return *handle = (void *)55, 0; }
int cublasLtDestroy(void *handle) { return handle == (void *)55 ? 0 : invalid; }
size_t cublasLtGetVersion(void) { return 130000; }
const char *cublasLtGetStatusString(int status) { return status == unsupported ? "not supported" : "invalid value"; }

int cublasLtMatmulDescCreate(struct operation **out, int compute, int scale) {
  *out = calloc(1, sizeof **out);
  (*out)->compute = compute;
  (*out)->epilogue = none;
  return scale == f32 ? 0 : invalid;
}

int cublasLtMatmulDescSetAttribute(struct operation *operation, int attribute, const void *value, size_t bytes) {
  struct { int attribute; void *place; size_t bytes; } known[] = {
      {3, &operation->transpose_a, 4}, {4, &operation->transpose_b, 4}, {7, &operation->epilogue, 4},
      {8, &operation->bias, 8},        {11, &operation->sum, 8},        {12, &operation->sum_leading, 8},
      {25, &operation->is_fast, 1},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].attribute == attribute && known[i].bytes == bytes) return memcpy(known[i].place, value, bytes), 0;
  return invalid;
}

int cublasLtMatmulDescDestroy(struct operation *operation) { return free(operation), 0; }

int cublasLtMatrixLayoutCreate(struct layout **out, int type, int64_t rows, int64_t columns, int64_t leading) {
  *out = malloc(sizeof **out);
  **out = (struct layout){type, rows, columns, leading, 0, 1};
  return leading >= rows ? 0 : invalid;
}

int cublasLtMatrixLayoutSetAttribute(struct layout *layout, int attribute, const void *value, size_t bytes) {
  if (attribute == 5 && bytes == 4) return layout->batch = *(const int *)value, 0;
  if (attribute == 6 && bytes == 8) return layout->stride = *(const int64_t *)value, 0;
  return invalid;
}

int cublasLtMatrixLayoutDestroy(struct layout *layout) { return free(layout), 0; }
int cublasLtMatmulPreferenceCreate(void **out) { return *out = (void *)66, 0; }
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t bytes) { return 0; }
int cublasLtMatmulPreferenceDestroy(void *preference) { return 0; }

/* Every algorithm is its number; all do the same. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, struct operation *operation, struct layout *a, struct layout *b,
                                   struct layout *c, struct layout *d, void *preference, int wanted, char *results, int *found) {
  int is_known = operation->epilogue == none || operation->epilogue == bias || operation->epilogue == bias_gelu ||
                 operation->epilogue == bias_gelu_keeping_sum;
  *found = 0;
  if (!is_known || handle != (void *)55) return invalid;
  if (operation->epilogue != none && (operation->bias == NULL || d->rows == 7)) return unsupported;
  if (operation->epilogue == bias_gelu_keeping_sum && (operation->sum_leading < d->rows || operation->sum_leading % 8 != 0))
    return unsupported;
  int64_t lines = a->rows | a->columns | b->rows | a->leading | b->leading | d->leading;
  if (a->type == e4m3 && (b->type != e4m3 || d->type == e4m3 || !operation->transpose_a || operation->transpose_b || lines % 16 != 0))
    return unsupported;
  if (operation->is_fast != (a->type == e4m3)) return invalid;
  memset(results, 0, 96 * wanted);
  for (int i = 0; i < wanted; i++) *(int *)(results + 96 * i) = i;
  return *found = wanted, 0;
}

static float read(const void *memory, int type, int64_t i) {
  if (type == f32) return ((const float *)memory)[i];
  if (type == e4m3) {
    int byte = ((const uint8_t *)memory)[i], exponent = byte >> 3 & 15;
    float magnitude = exponent == 0 ? ldexpf(byte & 7, -9) : ldexpf(8 + (byte & 7), exponent - 10);
    return byte & 0x80 ? -magnitude : magnitude;
  }
  uint32_t bits = (uint32_t)((const uint16_t *)memory)[i] << 16;
  float value;
  return memcpy(&value, &bits, 4), value;
}

static void write(void *memory, int type, int64_t i, float value) {
  if (type == f32) {
    ((float *)memory)[i] = value;
    return;
  }
  uint32_t bits;
  memcpy(&bits, &value, 4);
  ((uint16_t *)memory)[i] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static float gelu(float x) { return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x))); }

int cublasLtMatmul(void *handle, struct operation *operation, const float *alpha, const void *a, struct layout *of_a,
                   const void *b, struct layout *of_b, const float *beta, const void *c, struct layout *of_c, void *d,
                   struct layout *of_d, const int *algorithm, void *workspace, size_t bytes, void *stream) {
  int has_bias = operation->epilogue != none, has_gelu = has_bias && operation->epilogue != bias;
  if (handle != (void *)55 || stream != (void *)77 || *alpha != 1 || *beta != 0 || *algorithm >= 6) return invalid;
  int64_t inner = operation->transpose_a ? of_a->rows : of_a->columns;
  for (int item = 0; item < of_d->batch; item++)
    for (int64_t column = 0; column < of_d->columns; column++)
      for (int64_t row = 0; row < of_d->rows; row++) {
        float sum = 0;
        for (int64_t i = 0; i < inner; i++) {
          int64_t at_a = operation->transpose_a ? i + row * of_a->leading : row + i * of_a->leading;
          int64_t at_b = operation->transpose_b ? column + i * of_b->leading : i + column * of_b->leading;
          sum += read(a, of_a->type, item * of_a->stride + at_a) * read(b, of_b->type, item * of_b->stride + at_b);
        }
        if (has_bias) sum += read(operation->bias, of_d->type, row);
        if (operation->epilogue == bias_gelu_keeping_sum)
          write(operation->sum, of_d->type, row + column * operation->sum_leading, sum);
        write(d, of_d->type, item * of_d->stride + row + column * of_d->leading, has_gelu ? gelu(sum) : sum);
      }
  return 0;
}
