/* Stands in for NCCL where there is no GPU: every other process has the data that this one has, and addresses are the
   host's. The name of a communicator must be the bytes 0 to 127, which shows that it came by value. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct id {
  unsigned char bytes[128];
};
struct communicator {
  int rank, world;
};

static int depth = 0;
static char message[64] = "";

int ncclGetVersion(int *version) { return *version = 22809, 0; }

int ncclGetUniqueId(struct id *id) {
  for (int i = 0; i < 128; i++) id->bytes[i] = i;
  return 0;
}

const char *ncclGetErrorString(int status) { return status == 4 ? "invalid argument" : "unknown"; }

const char *ncclGetLastError(void *communicator) { return message; }

static int fail(const char *text) {
  strcpy(message, text);
  return 4;
}

int ncclCommInitRank(struct communicator **out, int world, struct id id, int rank) {
  for (int i = 0; i < 128; i++)
    if (id.bytes[i] != i) return fail("not the name of a communicator");
  if (rank < 0 || rank >= world) return fail("no such rank");
  *out = malloc(sizeof **out);
  (*out)->rank = rank;
  (*out)->world = world;
  return 0;
}

int ncclCommDestroy(struct communicator *communicator) { return free(communicator), 0; }

int ncclGroupStart(void) { return depth++, 0; }

int ncclGroupEnd(void) { return depth-- > 0 ? 0 : fail("no group"); }

static int check(int type, int operation, void *stream) {
  if (depth != 1) return fail("not in a group");
  if (type != 7 || operation != 0) return fail("not a sum of float32");
  return stream == (void *)77 ? 0 : fail("another stream");
}

int ncclAllReduce(const float *x, float *y, size_t count, int type, int operation, struct communicator *c, void *stream) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] * c->world;
  return check(type, operation, stream);
}

int ncclAllGather(const float *x, float *y, size_t count, int type, struct communicator *c, void *stream) {
  for (int part = 0; part < c->world; part++) memcpy(y + part * count, x, count * sizeof *x);
  return check(type, 0, stream);
}

int ncclReduceScatter(const float *x, float *y, size_t count, int type, int operation, struct communicator *c, void *stream) {
  for (size_t i = 0; i < count; i++) y[i] = x[c->rank * count + i] * c->world;
  return check(type, operation, stream);
}
