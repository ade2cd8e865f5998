/*
 * Runs the inner loops of `native/bfloat.c` over matrices that end where memory ends: what reads or writes beyond ends this
 * process. Prints nothing and returns 0 if panels are right, too.
 */
#define _GNU_SOURCE
#include "../../native/tile.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

typedef struct {
  void *start;
  size_t pages;
} Pages;

/** Memory of so many bytes, the last one in front of a page that nobody may touch. */
static void *take(Pages *out, size_t bytes) {
  const size_t pages = (bytes + PAGE - 1) / PAGE;
  char *start = mmap(NULL, (pages + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + pages * PAGE, PAGE, PROT_NONE) != 0) exit(2);
  *out = (Pages){start, pages + 1};
  return start + pages * PAGE - bytes;
}

static void give(Pages pages) { munmap(pages.start, pages.pages * PAGE); }

/** A whole number, or 0 beyond the matrix, as the upper half of its bits: small whole numbers have no lower one. */
static uint32_t half_of(const float *in, size_t rows, size_t columns, size_t row, size_t column) {
  const float value = row < rows && column < columns ? in[row * columns + column] : 0;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 16;
}

static void check_packing(size_t rows, size_t columns) {
  const size_t width = rounded_products.columns, pairs = (rows + 1) / 2, panels = (columns + width - 1) / width;
  const size_t stride = ((columns + 1) / 2 + 15) / 16 * 16;
  Pages of_in, of_rows, of_panels;
  float *in = take(&of_in, rows * columns * sizeof *in);
  for (size_t i = 0; i < rows * columns; i++) in[i] = (float)(i % 7);
  Pair *out = take(&of_rows, rows * stride * sizeof *out);
  rounded_products.write_rows(out, stride, in, columns, rows, columns);
  for (size_t i = 0; i < rows * stride; i++) {
    const size_t row = i / stride, column = 2 * (i % stride);
    const uint32_t low = half_of(in, rows, columns, row, column), high = half_of(in, rows, columns, row, column + 1);
    if (out[i] != (low | high << 16)) exit(1);
  }
  Pair *packed = take(&of_panels, panels * pairs * width * sizeof *packed);
  memset(packed, 0xff, panels * pairs * width * sizeof *packed);
  rounded_products.write_panels(packed, pairs * width, in, columns, rows, columns);
  for (size_t i = 0; i < panels * pairs * width; i++) {
    const size_t column = i / (pairs * width) * width + i % width, row = 2 * (i / width % pairs);
    const uint32_t low = half_of(in, rows, columns, row, column), high = half_of(in, rows, columns, row + 1, column);
    if (packed[i] != (low | high << 16)) exit(1);
  }
  give(of_in), give(of_rows), give(of_panels);
}

static void check_multiplying(size_t rows, size_t columns, size_t pairs) {
  Pages of_a, of_panel, of_start, of_out;
  const size_t width = rounded_products.columns;
  const Pair *a = take(&of_a, rounded_products.rows * pairs * sizeof *a);
  const Pair *panel = take(&of_panel, pairs * width * sizeof *panel);
  const float *start = take(&of_start, width * sizeof *start);
  float *out = take(&of_out, rows * columns * sizeof *out);
  rounded_products.multiply(out, columns, rows, columns, a, pairs, panel, pairs, start);
  give(of_a), give(of_panel), give(of_start), give(of_out);
}

int main(void) {
  for (size_t rows = 1; rows <= 20; rows++)
    for (size_t columns = 1; columns <= 100; columns++) check_packing(rows, columns);
  for (size_t rows = 1; rows <= rounded_products.rows; rows++)
    for (size_t columns = 1; columns <= rounded_products.columns; columns++)
      for (size_t pairs = 1; pairs <= 5; pairs++) check_multiplying(rows, columns, pairs);
  return 0;
}
