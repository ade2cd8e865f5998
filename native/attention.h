/* What attention in float32 and attention whose products are of rounded numbers have in common. */
#ifndef ZOETROPE_ATTENTION_H
#define ZOETROPE_ATTENTION_H

#include "operators.h"
#include "tile.h"

/** Queries whose scores are made at once. */
enum { BLOCK = 72 };

typedef struct {
  OrtApi *api;
  const Level *level;
  float scale;
  int segmented, rounded;
} Kernel;

/** One run: operands as the operator has them, and their sizes. */
typedef struct {
  const Kernel *kernel;
  const float *q, *k, *v, *y, *dy, *offsets;
  float *out, *dq, *dk, *dv;
  size_t batch, queries, keys, heads, size, offset_count;
  float *memory;
  size_t tasks, floats_of_task;
} Run;

/** A head of one segment: where its rows begin, how many there are, and how far apart. */
typedef struct {
  size_t queries, keys, stride;
  /** First element of the first query and of the first key. */
  size_t query, key;
  /** Sizes filled up to whole tiles. */
  size_t wide_keys, wide_size;
} Segment;

static inline size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t filled(size_t size, size_t part) { return (size + part - 1) / part * part; }

/** Attention and its gradient for a head of a segment, operands of products rounded to bfloat16. */
void attend_rounded(const Run *run, const Segment *at, float *memory);
void differentiate_rounded(const Run *run, const Segment *at, float *memory);

/** Floats of memory that they take. */
size_t memory_of_attend_rounded(const Segment *at);
size_t memory_of_differentiate_rounded(const Segment *at);

#endif
