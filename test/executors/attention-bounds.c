/*
 * Runs `native/rounded-attention.c` over operands, results and working memory that end where memory ends: what reads or writes
 * beyond ends this process. Working memory is full of numbers that are none: returns 0, printing nothing, if no result is.
 */
#define _GNU_SOURCE
#include "../../native/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, MOST = 16 };

static struct {
  void *start;
  size_t bytes;
} taken[MOST];
static size_t count;

/** Memory of so many floats, the last one in front of a page that nobody may touch. */
static float *take(size_t floats) {
  const size_t bytes = floats * sizeof(float), held = (bytes + PAGE - 1) / PAGE * PAGE;
  char *start = mmap(NULL, held + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + held, PAGE, PROT_NONE) != 0) exit(2);
  taken[count].start = start;
  taken[count++].bytes = held + PAGE;
  return memset(start + held - bytes, 0xff, bytes);
}

static float *operand(size_t floats) {
  float *out = take(floats);
  for (size_t i = 0; i < floats; i++) out[i] = (float)(i % 7) - 3;
  return out;
}

/** The last of two heads has numbers, the other one was not touched. */
static void check_result(const float *out, size_t tokens, size_t size) {
  for (size_t i = 0; i < tokens * 2 * size; i++)
    if (!isnan(out[i]) != (i / size % 2 == 1)) exit(1);
}

static void check(size_t queries, size_t keys, size_t size) {
  const Kernel kernel = {NULL, &level_v4, 0.125f, 0, 1};
  const size_t of_queries = queries * 2 * size, of_keys = keys * 2 * size;
  Run run = {.kernel = &kernel, .size = size, .heads = 2, .batch = 1, .queries = queries, .keys = keys};
  const Segment at = {queries, keys, 2 * size, size, size, filled(keys, 32), filled(size, 32)};
  run.q = operand(of_queries), run.k = operand(of_keys), run.v = operand(of_keys);
  run.y = operand(of_queries), run.dy = operand(of_queries), run.out = take(of_queries);
  run.dq = take(of_queries), run.dk = take(of_keys), run.dv = take(of_keys);
  attend_rounded(&run, &at, take(memory_of_attend_rounded(&at)));
  differentiate_rounded(&run, &at, take(memory_of_differentiate_rounded(&at)));
  check_result(run.out, queries, size), check_result(run.dq, queries, size);
  check_result(run.dk, keys, size), check_result(run.dv, keys, size);
  while (count > 0) count--, munmap(taken[count].start, taken[count].bytes);
}

int main(void) {
  const size_t sizes[] = {1, 24, 32, 33, 64}, lengths[] = {1, 2, 15, 31, 32, 33, 65, 72, 73, 147};
  for (size_t i = 0; i < 5; i++)
    for (size_t k = 0; k < 10; k++) {
      check(lengths[k], lengths[k], sizes[i]);
      check(lengths[k], lengths[9 - k], sizes[i]);
    }
  return 0;
}
