/* Stands in for what the CUDA driver does with graphs where there is no GPU. A kernel has five parameters of 8 bytes each.
   Like the driver's, first editions of functions that list dependencies refuse where one is not an ordinary one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { most = 64, parameters = 5 };
enum { kernel = 0, memset_kind = 2, host = 3, empty = 5 };
enum { invalid = 1, lossy = 402 };

struct memset_parameters {
  void *address;
  size_t pitch;
  unsigned value, element_bytes;
  size_t width, rows;
};
struct kernel_parameters {
  void *function;
  unsigned grid[3], block[3], shared_bytes;
  void **parameters, **extra;
  void *kernel, *context;
};
struct node {
  struct graph *graph;
  int kind;
  struct memset_parameters memset;
  struct kernel_parameters kernel;
  uint64_t values[parameters];
  void *places[parameters];
};
struct edge {
  struct node *from, *to;
  char data[8];
};
struct graph {
  struct node *nodes[most];
  struct edge edges[most];
  size_t node_count, edge_count;
};

int cuGraphCreate(struct graph **out, unsigned flags) { return *out = calloc(1, sizeof **out), flags == 0 ? 0 : invalid; }

int cuGraphDestroy(struct graph *graph) {
  for (size_t i = 0; i < graph->node_count; i++) free(graph->nodes[i]);
  return free(graph), 0;
}

static int is_in(const struct graph *graph, const struct node *node) {
  for (size_t i = 0; i < graph->node_count; i++)
    if (graph->nodes[i] == node) return 1;
  return 0;
}

int cuGraphAddDependencies_v2(struct graph *graph, struct node **from, struct node **to, const char *data, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!is_in(graph, from[i]) || !is_in(graph, to[i]) || graph->edge_count == most) return invalid;
    for (size_t j = 0; j < graph->edge_count; j++)
      if (graph->edges[j].from == from[i] && graph->edges[j].to == to[i]) return invalid;
    struct edge *added = &graph->edges[graph->edge_count++];
    *added = (struct edge){from[i], to[i], {0}};
    if (data != NULL) memcpy(added->data, data + 8 * i, 8);
  }
  return 0;
}

int cuGraphAddDependencies(struct graph *graph, struct node **from, struct node **to, size_t count) {
  return cuGraphAddDependencies_v2(graph, from, to, NULL, count);
}

static int add(struct node **out, struct graph *graph, struct node **before, size_t count, int kind) {
  struct node *made = calloc(1, sizeof *made);
  made->graph = graph;
  made->kind = kind;
  graph->nodes[graph->node_count++] = *out = made;
  for (size_t i = 0; i < count; i++)
    if (cuGraphAddDependencies(graph, &before[i], &made, 1) != 0) return invalid;
  return 0;
}

int cuGraphAddEmptyNode(struct node **out, struct graph *graph, struct node **before, size_t count) {
  return add(out, graph, before, count, empty);
}

int cuGraphAddHostNode(struct node **out, struct graph *graph, struct node **before, size_t count, const void *call) {
  return add(out, graph, before, count, host);
}

int cuGraphAddMemsetNode(struct node **out, struct graph *graph, struct node **before, size_t count,
                         const struct memset_parameters *given, void *context) {
  const int status = add(out, graph, before, count, memset_kind);
  (*out)->memset = *given;
  return status;
}

int cuGraphAddKernelNode_v2(struct node **out, struct graph *graph, struct node **before, size_t count,
                            const struct kernel_parameters *given) {
  const int status = add(out, graph, before, count, kernel);
  struct node *made = *out;
  made->kernel = *given;
  for (int i = 0; i < parameters; i++) {
    memcpy(&made->values[i], given->parameters[i], 8);
    made->places[i] = &made->values[i];
  }
  made->kernel.parameters = made->places;
  return given->extra == NULL && given->context == NULL ? status : invalid;
}

int cuGraphKernelNodeGetParams_v2(struct node *node, struct kernel_parameters *out) {
  return *out = node->kernel, node->kind == kernel ? 0 : invalid;
}

int cuGraphMemsetNodeGetParams(struct node *node, struct memset_parameters *out) {
  return *out = node->memset, node->kind == memset_kind ? 0 : invalid;
}

int cuGraphNodeGetType(struct node *node, int *type) { return *type = node->kind, 0; }

int cuGraphGetNodes(struct graph *graph, struct node **nodes, size_t *count) {
  if (nodes != NULL) memcpy(nodes, graph->nodes, graph->node_count * sizeof *nodes);
  return *count = graph->node_count, 0;
}

int cuGraphGetEdges_v2(struct graph *graph, struct node **from, struct node **to, char *data, size_t *count) {
  for (size_t i = 0; from != NULL && i < graph->edge_count; i++) {
    from[i] = graph->edges[i].from;
    to[i] = graph->edges[i].to;
    memcpy(data + 8 * i, graph->edges[i].data, 8);
  }
  return *count = graph->edge_count, 0;
}

static int neighbours(struct node *node, struct node **found, size_t *count, int is_before) {
  static const char ordinary[8];
  const struct graph *graph = node->graph;
  size_t next = 0;
  for (size_t i = 0; i < graph->edge_count; i++) {
    const struct edge *edge = &graph->edges[i];
    if ((is_before ? edge->to : edge->from) != node) continue;
    if (memcmp(edge->data, ordinary, 8) != 0) return lossy;
    if (found != NULL) found[next] = is_before ? edge->from : edge->to;
    next++;
  }
  return *count = next, 0;
}

int cuGraphNodeGetDependencies(struct node *node, struct node **found, size_t *count) {
  return neighbours(node, found, count, 1);
}

int cuGraphNodeGetDependentNodes(struct node *node, struct node **found, size_t *count) {
  return neighbours(node, found, count, 0);
}

int cuGraphDestroyNode(struct node *node) {
  struct graph *graph = node->graph;
  size_t kept = 0;
  for (size_t i = 0; i < graph->node_count; i++)
    if (graph->nodes[i] != node) graph->nodes[kept++] = graph->nodes[i];
  graph->node_count = kept;
  kept = 0;
  for (size_t i = 0; i < graph->edge_count; i++)
    if (graph->edges[i].from != node && graph->edges[i].to != node) graph->edges[kept++] = graph->edges[i];
  graph->edge_count = kept;
  return free(node), 0;
}
