/*
 * The little of ONNX Runtime's C interface that a custom operator needs, written down from its documentation: places in
 * `OrtApi` and the order of the callbacks in `OrtCustomOp` never change once a version has shipped. Version 17.
 */
#ifndef ZOETROPE_ORT_H
#define ZOETROPE_ORT_H

#include <stddef.h>
#include <stdint.h>

enum { ORT_VERSION_USED = 17, ORT_FLOAT = 1, ORT_FAIL = 1, ORT_VARIADIC = 2 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtContext OrtContext;
typedef struct OrtInfo OrtInfo;
typedef struct OrtShape OrtShape;
/** A table of function pointers, of which the following read one each. */
typedef void *const OrtApi;

#define ORT_FUNCTION(place, api, type) ((type)(api)[place])
#define ort_create_status(api, text) ORT_FUNCTION(0, api, OrtStatus *(*)(int, const char *))(ORT_FAIL, text)
#define ort_data(api, ...) ORT_FUNCTION(51, api, OrtStatus *(*)(OrtValue *, void **))(__VA_ARGS__)
#define ort_rank(api, ...) ORT_FUNCTION(61, api, OrtStatus *(*)(const OrtShape *, size_t *))(__VA_ARGS__)
#define ort_sizes(api, ...) ORT_FUNCTION(62, api, OrtStatus *(*)(const OrtShape *, int64_t *, size_t))(__VA_ARGS__)
#define ort_elements(api, ...) ORT_FUNCTION(64, api, OrtStatus *(*)(const OrtShape *, size_t *))(__VA_ARGS__)
#define ort_shape(api, ...) ORT_FUNCTION(65, api, OrtStatus *(*)(const OrtValue *, OrtShape **))(__VA_ARGS__)
#define ort_input(api, ...) ORT_FUNCTION(90, api, OrtStatus *(*)(const OrtContext *, size_t, OrtValue **))(__VA_ARGS__)
#define ort_output(api, ...) \
  ORT_FUNCTION(91, api, OrtStatus *(*)(OrtContext *, size_t, const int64_t *, size_t, OrtValue **))(__VA_ARGS__)
#define ort_release_shape(api, ...) ORT_FUNCTION(99, api, void (*)(OrtShape *))(__VA_ARGS__)
#define ort_floats(api, ...) \
  ORT_FUNCTION(162, api, OrtStatus *(*)(const OrtInfo *, const char *, float *, size_t *))(__VA_ARGS__)
#define ort_integers(api, ...) \
  ORT_FUNCTION(163, api, OrtStatus *(*)(const OrtInfo *, const char *, int64_t *, size_t *))(__VA_ARGS__)
#define ort_parallel_for(api, ...) \
  ORT_FUNCTION(274, api, OrtStatus *(*)(const OrtContext *, void (*)(void *, size_t), size_t, size_t, void *)) \
  (__VA_ARGS__)

typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
  uint32_t version;
  void *(*create_kernel)(const OrtCustomOp *, OrtApi *, const OrtInfo *);
  const char *(*name)(const OrtCustomOp *);
  const char *(*provider)(const OrtCustomOp *);
  int (*input_type)(const OrtCustomOp *, size_t);
  size_t (*input_count)(const OrtCustomOp *);
  int (*output_type)(const OrtCustomOp *, size_t);
  size_t (*output_count)(const OrtCustomOp *);
  void (*compute)(void *, OrtContext *);
  void (*destroy)(void *);
  int (*input_kind)(const OrtCustomOp *, size_t);
  int (*output_kind)(const OrtCustomOp *, size_t);
  int (*input_memory)(const OrtCustomOp *, size_t);
  int (*least_inputs)(const OrtCustomOp *);
  int (*inputs_of_one_type)(const OrtCustomOp *);
  int (*least_outputs)(const OrtCustomOp *);
  int (*outputs_of_one_type)(const OrtCustomOp *);
  OrtStatus *(*create_kernel_2)(const OrtCustomOp *, OrtApi *, const OrtInfo *, void **);
  OrtStatus *(*compute_2)(void *, OrtContext *);
  OrtStatus *(*infer_shapes)(const OrtCustomOp *, void *);
  int (*first_version)(const OrtCustomOp *);
  int (*last_version)(const OrtCustomOp *);
};

#endif
