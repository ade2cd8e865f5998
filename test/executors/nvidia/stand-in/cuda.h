// What kernels use of CUDA, for one CPU thread: blocks run one after the other, the threads of a block as fibers that
// change places where they wait for each other. Included before kernels that g++ compiles as C++.
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static uint3 blockIdx, threadIdx, blockDim, gridDim;

template <class To, class From> static inline To same_bits(From x) { To y; memcpy(&y, &x, sizeof y); return y; }
static inline float __int_as_float(int x) { return same_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }

namespace stand_in {
constexpr int most_threads = 1024, stack_bytes = 64 << 10;
enum State : char { ready, at_warp, at_block, finished };
struct Fiber { jmp_buf place; char* stack; State state; bool started; int shuffles; };
static Fiber fibers[most_threads];
static float slots[2][most_threads];
static jmp_buf scheduler;
static ucontext_t entrance, back;
static int current;
static void (*body)(void**);
static void** arguments;
alignas(256) static char dynamic_shared[228 << 10];

// A fiber outlives its thread: it waits for the next one.
static void live() {
  for (;;) {
    body(arguments);
    fibers[current].state = finished;
    if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
  }
}

static inline void wait(State state) {
  fibers[current].state = state;
  if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
}

static void resume(int thread) {
  Fiber& fiber = fibers[thread];
  current = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
  fiber.state = ready;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  fiber.stack = (char*)malloc(stack_bytes);
  getcontext(&entrance);
  entrance.uc_stack.ss_sp = fiber.stack;
  entrance.uc_stack.ss_size = stack_bytes;
  entrance.uc_link = nullptr;
  makecontext(&entrance, live, 0);
  swapcontext(&back, &entrance);
}

static bool all(int first, int last, State state) {
  bool some = false;
  for (int t = first; t < last; t++) {
    if (fibers[t].state != state && fibers[t].state != finished) return false;
    some |= fibers[t].state == state;
  }
  return some;
}

// Runs the threads of a block; false when some wait for others that never come.
static bool run_block(int threads) {
  for (int t = 0; t < threads; t++) fibers[t].shuffles = 0;
  for (int t = 0; t < threads; t++) resume(t);
  for (;;) {
    bool moved = false, done = true;
    for (int first = 0; first < threads; first += 32) {
      const int last = first + 32 < threads ? first + 32 : threads;
      while (all(first, last, at_warp)) {
        moved = true;
        for (int t = first; t < last; t++) if (fibers[t].state == at_warp) resume(t);
      }
    }
    if (all(0, threads, at_block)) {
      moved = true;
      for (int t = 0; t < threads; t++) if (fibers[t].state == at_block) resume(t);
    }
    for (int t = 0; t < threads; t++) done &= fibers[t].state == finished;
    if (done) return true;
    if (!moved) return false;
  }
}

template <class... P, size_t... I> static void apply(void (*kernel)(P...), void** a, std::index_sequence<I...>) {
  kernel((P)a[I]...);
}
template <class... P> static void call(void (*kernel)(P...), void** a) {
  apply(kernel, a, std::index_sequence_for<P...>());
}
}  // namespace stand_in

static inline void __syncthreads() { stand_in::wait(stand_in::at_block); }
static inline void __syncwarp(unsigned = ~0u) { stand_in::wait(stand_in::at_warp); }
static inline float __shfl_xor_sync(unsigned, float x, int mask) {
  using namespace stand_in;
  const int thread = current, other = thread ^ mask;
  float* slot = slots[fibers[thread].shuffles++ & 1];
  slot[thread] = x;
  wait(at_warp);
  // A lane that left before gives nothing.
  return fibers[other].shuffles < fibers[thread].shuffles ? NAN : slot[other];
}
template <class T> static inline T atomicAdd(T* p, T x) { const T old = *p; *p = old + x; return old; }

struct Entry { void (*run)(void**); bool waits; };
extern const Entry entries[];

// Runs a kernel: 0 when all went well, 1 when its threads wait for each other without end.
extern "C" int launch(int index, void** a, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz) {
  using namespace stand_in;
  gridDim = {gx, gy, gz};
  blockDim = {bx, by, bz};
  body = entries[index].run;
  arguments = a;
  const int threads = bx * by * bz;
  for (unsigned z = 0; z < gz; z++)
    for (unsigned y = 0; y < gy; y++)
      for (unsigned x = 0; x < gx; x++) {
        blockIdx = {x, y, z};
        memset(dynamic_shared, 0xff, 4096);
        if (entries[index].waits) {
          if (!run_block(threads)) return 1;
        } else {
          for (int t = 0; t < threads; t++) {
            threadIdx = {t % bx, t / bx % by, t / (bx * by)};
            body(a);
          }
        }
      }
  return 0;
}
