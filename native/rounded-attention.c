/*
 * Attention and its gradient as in `attention.c`, for a head of a segment, with products of numbers rounded to bfloat16 as they
 * are packed: queries times the scale, keys, values, weights, and what changes of these. Sums, softmax and its gradient are
 * float32. Every number is one sum in one order.
 */
#include "attention.h"

#include <string.h>

_Static_assert(BLOCK % 8 == 0 && BLOCK >= 32, "whole tiles of rows are read; what holds a block's rows holds a panel's");

static size_t pairs_of(size_t count) { return (count + 1) / 2; }
/** Pairs of a row of a matrix: whole lines of the cache, as tiles have 32 columns. */
static size_t half_size(const Segment *at) { return at->wide_size / 2; }
static size_t half_keys(const Segment *at) { return at->wide_keys / 2; }

/** A segment's rows, transposed: panels with pairs along a row's numbers. `strip` takes a panel's rows. */
static void pack_transposed(const Run *run, const float *from, const Segment *at, Pair *strip, Pair *panels) {
  const size_t columns = rounded_products.columns, pairs = pairs_of(run->size);
  for (size_t first = 0; first < at->keys; first += columns, panels += columns * pairs) {
    const size_t count = smaller_of(columns, at->keys - first);
    rounded_products.write_rows(strip, half_size(at), from + first * at->stride, at->stride, count, run->size);
    if (count < columns) memset(panels, 0, columns * pairs * sizeof *panels);
    /* Pairs change places as the floats that are as long. */
    run->kernel->level->transpose((float *)panels, columns, (const float *)strip, half_size(at), count, pairs);
  }
}

/** A segment's rows: panels with pairs along the keys. */
static void pack(const Run *run, const float *from, const Segment *at, Pair *panels) {
  rounded_products.write_panels(panels, pairs_of(at->keys) * rounded_products.columns, from, at->stride, at->keys, run->size);
}

/** Panels of a block's rows, which are summed over. */
static void pack_block(Pair *panels, const float *from, size_t stride, size_t count, size_t columns) {
  rounded_products.write_panels(panels, pairs_of(count) * rounded_products.columns, from, stride, count, columns);
}

/** out = a b for `rows` rows of a, `a_stride` apart, and the panels of b. Whole tiles are read, the rows asked for written. */
static void multiply(float *out, size_t out_stride, size_t rows, size_t columns, const Pair *a, size_t a_stride,
                     const Pair *panels, size_t pairs) {
  static const float zeros[64] = {0};
  for (size_t column = 0; column < columns; column += rounded_products.columns, panels += pairs * rounded_products.columns)
    for (size_t row = 0; row < rows; row += rounded_products.rows)
      rounded_products.multiply(out + row * out_stride + column, out_stride, smaller_of(rounded_products.rows, rows - row),
                                smaller_of(rounded_products.columns, columns - column), a + row * a_stride, a_stride, panels,
                                pairs, zeros);
}

/** out += a^T b over pairs of rows, both packed: a of the segment's keys, b of a row's numbers. */
static void add_products(float *out, const Segment *at, const Pair *a, const Pair *b, size_t pairs) {
  const size_t width = rounded_products.columns, panel = pairs * width;
  for (size_t column = 0; column < at->wide_size; column += width)
    for (size_t key = 0; key < at->keys; key += rounded_products.rows)
      rounded_products.add_products(out + key * at->wide_size + column, at->wide_size, a + key / width * panel + key % width,
                                    b + column / width * panel, pairs);
}

/** Rows times the scale; may be in place. */
static void scale_rows(const Run *run, float *to, size_t to_stride, size_t rows, const float *from, size_t stride) {
  for (size_t row = 0; row < rows; row++, to += to_stride, from += stride)
    for (size_t i = 0; i < run->size; i++) to[i] = run->kernel->scale * from[i];
}

/** Scores of a block's queries, [count][wide_keys]; softmax is left to be taken. */
static void make_scores(const Run *run, const Segment *at, const float *scaled, size_t count, const Pair *key_panels,
                        Pair *queries, float *scores) {
  rounded_products.write_rows(queries, half_size(at), scaled, at->wide_size, count, run->size);
  multiply(scores, at->wide_keys, count, at->keys, queries, half_size(at), key_panels, pairs_of(run->size));
}

void attend_rounded(const Run *run, const Segment *at, float *memory) {
  const size_t keys_by_size = at->wide_keys * half_size(at);
  float *scaled = memory, *scores = scaled + BLOCK * at->wide_size;
  Pair *key_panels = (Pair *)(scores + BLOCK * at->wide_keys), *value_panels = key_panels + keys_by_size;
  Pair *queries = value_panels + keys_by_size, *weights = queries + BLOCK * half_size(at);
  pack_transposed(run, run->k + at->key, at, queries, key_panels);
  pack(run, run->v + at->key, at, value_panels);
  for (size_t first = 0; first < at->queries; first += BLOCK) {
    const size_t count = smaller_of(BLOCK, at->queries - first), place = at->query + first * at->stride;
    scale_rows(run, scaled, at->wide_size, count, run->q + place, at->stride);
    make_scores(run, at, scaled, count, key_panels, queries, scores);
    for (size_t row = 0; row < count; row++) {
      float *of_row = scores + row * at->wide_keys;
      run->kernel->level->softmax(of_row, at->keys);
      rounded_products.write_rows(weights + row * half_keys(at), half_keys(at), of_row, at->wide_keys, 1, at->keys);
    }
    multiply(run->out + place, at->stride, count, run->size, weights, half_keys(at), value_panels, pairs_of(at->keys));
  }
}

size_t memory_of_attend_rounded(const Segment *at) {
  return at->wide_keys * at->wide_size + BLOCK * (at->wide_size + at->wide_keys + half_size(at) + half_keys(at));
}

/** Softmax and its gradient: of `weights` the scores, and of `changes` the weights' gradients. */
static void make_changes(const Run *run, const Segment *at, size_t place, size_t count, float *weights, float *changes) {
  const Level *level = run->kernel->level;
  for (size_t row = 0; row < count; row++, weights += at->wide_keys, changes += at->wide_keys) {
    const size_t first = place + row * at->stride;
    level->softmax(weights, at->keys);
    level->softmax_gradient(changes, weights, level->dot(run->dy + first, run->y + first, run->size), at->keys);
  }
}

/** Writes the sums of a segment's keys. */
static void write_sums(const Run *run, const Segment *at, const float *sums, float *out) {
  for (size_t key = 0; key < at->keys; key++)
    memcpy(out + at->key + key * at->stride, sums + key * at->wide_size, run->size * sizeof *out);
}

/** As `differentiate` of `attention.c`; the scale of dq comes after the product. */
void differentiate_rounded(const Run *run, const Segment *at, float *memory) {
  const size_t keys_by_size = at->wide_keys * half_size(at), block = BLOCK * at->wide_keys;
  float *dk = memory, *dv = dk + 2 * keys_by_size, *weights = dv + 2 * keys_by_size, *changes = weights + block;
  float *scaled = changes + block;
  Pair *key_panels = (Pair *)(scaled + BLOCK * at->wide_size), *value_panels = key_panels + keys_by_size;
  Pair *keys = value_panels + keys_by_size, *rows = keys + keys_by_size, *columns = rows + BLOCK * half_size(at);
  Pair *packed = columns + BLOCK * half_size(at);
  pack_transposed(run, run->k + at->key, at, rows, key_panels);
  pack_transposed(run, run->v + at->key, at, rows, value_panels);
  pack(run, run->k + at->key, at, keys);
  memset(dk, 0, 4 * keys_by_size * sizeof *dk);
  for (size_t first = 0; first < at->queries; first += BLOCK) {
    const size_t count = smaller_of(BLOCK, at->queries - first), place = at->query + first * at->stride;
    scale_rows(run, scaled, at->wide_size, count, run->q + place, at->stride);
    make_scores(run, at, scaled, count, key_panels, rows, weights);
    rounded_products.write_rows(rows, half_size(at), run->dy + place, at->stride, count, run->size);
    multiply(changes, at->wide_keys, count, at->keys, rows, half_size(at), value_panels, pairs_of(run->size));
    make_changes(run, at, place, count, weights, changes);
    pack_block(packed, weights, at->wide_keys, count, at->keys);
    pack_block(columns, run->dy + place, at->stride, count, run->size);
    add_products(dv, at, packed, columns, pairs_of(count));
    pack_block(packed, changes, at->wide_keys, count, at->keys);
    pack_block(columns, scaled, at->wide_size, count, run->size);
    add_products(dk, at, packed, columns, pairs_of(count));
    rounded_products.write_rows(packed, half_keys(at), changes, at->wide_keys, count, at->keys);
    multiply(run->dq + place, at->stride, count, run->size, packed, half_keys(at), keys, pairs_of(at->keys));
    scale_rows(run, run->dq + place, at->stride, count, run->dq + place, at->stride);
  }
  write_sums(run, at, dk, run->dk);
  write_sums(run, at, dv, run->dv);
}

size_t memory_of_differentiate_rounded(const Segment *at) {
  const size_t keys_by_size = at->wide_keys * half_size(at);
  return 7 * keys_by_size + BLOCK * (2 * at->wide_keys + 2 * at->wide_size + half_keys(at));
}
