/** Functions whose fast forms are off by more than the rounding of f32. */
const exactFunctions = `
__device__ __forceinline__ float quotient(float a, float b) { return a / b; }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ float exponential(float x) { return expf(x); }
`;

/** The same through the instructions that approximate them, to some units in the last place. */
const fastFunctions = `
__device__ __forceinline__ float quotient(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ float root(float x) { float y; asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float exponential(float x) { return __expf(x); }
`;

const common = `
struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
struct f8e4m3 { unsigned char bits; };
#define INF __int_as_float(0x7f800000)
__device__ __forceinline__ float half_to_float(unsigned short h) { float x; asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h)); return x; }
__device__ __forceinline__ unsigned short float_to_half(float x) { unsigned short h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x)); return h; }
__device__ __forceinline__ unsigned short float_to_bf16(float x) { unsigned short h; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x)); return h; }
__device__ __forceinline__ unsigned short e4m3_pair(float a, float b) { unsigned short p; asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(p) : "f"(b), "f"(a)); return p; }
__device__ __forceinline__ float e4m3_to_float(unsigned b) {
  // The fraction and exponent at the head of a float's, whose exponents begin 120 lower.
  const float x = (b & 0x7f) == 0x7f ? __int_as_float(0x7fffffff) : __uint_as_float((b & 0x7f) << 20) * 1.329227995784916e36f;
  return b & 0x80 ? -x : x;
}
__device__ __forceinline__ float get(const float* p, long long i) { return p[i]; }
__device__ __forceinline__ int get(const int* p, long long i) { return p[i]; }
__device__ __forceinline__ int get(const unsigned char* p, long long i) { return p[i]; }
__device__ __forceinline__ float get(const f16* p, long long i) { return half_to_float(p[i].bits); }
__device__ __forceinline__ float get(const bf16* p, long long i) { return __uint_as_float((unsigned)p[i].bits << 16); }
__device__ __forceinline__ float get(const f8e4m3* p, long long i) { return e4m3_to_float(p[i].bits); }
__device__ __forceinline__ void put(float* p, long long i, float x) { p[i] = x; }
__device__ __forceinline__ void put(int* p, long long i, int x) { p[i] = x; }
__device__ __forceinline__ void put(unsigned char* p, long long i, int x) { p[i] = (unsigned char)(x != 0); }
__device__ __forceinline__ void put(f16* p, long long i, float x) { p[i].bits = float_to_half(x); }
__device__ __forceinline__ void put(bf16* p, long long i, float x) { p[i].bits = float_to_bf16(x); }
__device__ __forceinline__ void put(f8e4m3* p, long long i, float x) { p[i].bits = (unsigned char)e4m3_pair(x, 0.0f); }
__device__ __forceinline__ float round_f16(float x) { return half_to_float(float_to_half(x)); }
__device__ __forceinline__ float round_bf16(float x) { return __uint_as_float((unsigned)float_to_bf16(x) << 16); }
__device__ __forceinline__ float sigmoid(float x) { return quotient(1.0f, 1.0f + exponential(-x)); }
__device__ __forceinline__ int quotient(int a, int b) { return a / b; }
__device__ __forceinline__ float plus(float a, float b) { return a + b; }
__device__ __forceinline__ int plus(int a, int b) { return a + b; }
__device__ __forceinline__ float larger(float a, float b) { return a != a ? a : (a < b ? b : a); }
__device__ __forceinline__ int larger(int a, int b) { return a < b ? b : a; }
__device__ __forceinline__ float smaller(float a, float b) { return a != a ? a : (b < a ? b : a); }
__device__ __forceinline__ int smaller(int a, int b) { return b < a ? b : a; }
__device__ __forceinline__ float warp_sum(float x) { for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d); return x; }
__device__ __forceinline__ float warp_max(float x) { for (int d = 16; d; d >>= 1) x = larger(x, __shfl_xor_sync(~0u, x, d)); return x; }
__device__ __forceinline__ float lanes_sum(float x, int lanes) { for (int d = lanes / 2; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d); return x; }
__device__ __forceinline__ float lanes_max(float x, int lanes) { for (int d = lanes / 2; d; d >>= 1) x = larger(x, __shfl_xor_sync(~0u, x, d)); return x; }
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float parts[8];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = parts[0];
  for (int warp = 1; warp < 8; warp++) x += parts[warp];
  return x;
}
__device__ __forceinline__ float block_max(float x) {
  __shared__ float parts[8];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = parts[0];
  for (int warp = 1; warp < 8; warp++) x = larger(x, parts[warp]);
  return x;
}
__device__ __forceinline__ float block_sum(float x, int warps) {
  __shared__ float parts[8];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = parts[0];
  for (int warp = 1; warp < warps; warp++) x += parts[warp];
  return x;
}
__device__ __forceinline__ float block_max(float x, int warps) {
  __shared__ float parts[8];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = parts[0];
  for (int warp = 1; warp < warps; warp++) x = larger(x, parts[warp]);
  return x;
}
__device__ __forceinline__ void load4(float* r, const float* p, long long i) { const float4 v = *(const float4*)(p + i); r[0] = v.x; r[1] = v.y; r[2] = v.z; r[3] = v.w; }
__device__ __forceinline__ void load2(float* r, const float* p, long long i) { const float2 v = *(const float2*)(p + i); r[0] = v.x; r[1] = v.y; }
__device__ __forceinline__ void store4(float* p, long long i, const float* r) { *(float4*)(p + i) = make_float4(r[0], r[1], r[2], r[3]); }
__device__ __forceinline__ void store2(float* p, long long i, const float* r) { *(float2*)(p + i) = make_float2(r[0], r[1]); }
__device__ __forceinline__ unsigned bf16_pair(float a, float b) { return (unsigned)float_to_bf16(a) | (unsigned)float_to_bf16(b) << 16; }
__device__ __forceinline__ void load2(float* r, const bf16* p, long long i) { const unsigned v = *(const unsigned*)(p + i); r[0] = __uint_as_float(v << 16); r[1] = __uint_as_float(v & 0xffff0000u); }
__device__ __forceinline__ void load4(float* r, const bf16* p, long long i) { const uint2 v = *(const uint2*)(p + i); r[0] = __uint_as_float(v.x << 16); r[1] = __uint_as_float(v.x & 0xffff0000u); r[2] = __uint_as_float(v.y << 16); r[3] = __uint_as_float(v.y & 0xffff0000u); }
__device__ __forceinline__ void store2(bf16* p, long long i, const float* r) { *(unsigned*)(p + i) = bf16_pair(r[0], r[1]); }
__device__ __forceinline__ void store4(bf16* p, long long i, const float* r) { *(uint2*)(p + i) = make_uint2(bf16_pair(r[0], r[1]), bf16_pair(r[2], r[3])); }
__device__ __forceinline__ void load8(float* r, const float* p, long long i) { load4(r, p, i); load4(r + 4, p, i + 4); }
__device__ __forceinline__ void store8(float* p, long long i, const float* r) { store4(p, i, r); store4(p, i + 4, r + 4); }
__device__ __forceinline__ void load8(float* r, const bf16* p, long long i) {
  const uint4 v = *(const uint4*)(p + i);
  const unsigned pairs[4] = {v.x, v.y, v.z, v.w};
  #pragma unroll
  for (int k = 0; k < 4; k++) { r[2 * k] = __uint_as_float(pairs[k] << 16); r[2 * k + 1] = __uint_as_float(pairs[k] & 0xffff0000u); }
}
__device__ __forceinline__ void store8(bf16* p, long long i, const float* r) { *(uint4*)(p + i) = make_uint4(bf16_pair(r[0], r[1]), bf16_pair(r[2], r[3]), bf16_pair(r[4], r[5]), bf16_pair(r[6], r[7])); }
__device__ __forceinline__ unsigned e4m3_quad(const float* r) { return (unsigned)e4m3_pair(r[0], r[1]) | (unsigned)e4m3_pair(r[2], r[3]) << 16; }
__device__ __forceinline__ void from_quad(float* r, unsigned v) {
  #pragma unroll
  for (int k = 0; k < 4; k++) r[k] = e4m3_to_float(v >> (8 * k) & 0xff);
}
__device__ __forceinline__ void load2(float* r, const f8e4m3* p, long long i) { r[0] = get(p, i); r[1] = get(p, i + 1); }
__device__ __forceinline__ void load4(float* r, const f8e4m3* p, long long i) { from_quad(r, *(const unsigned*)(p + i)); }
__device__ __forceinline__ void load8(float* r, const f8e4m3* p, long long i) { const uint2 v = *(const uint2*)(p + i); from_quad(r, v.x); from_quad(r + 4, v.y); }
__device__ __forceinline__ void store2(f8e4m3* p, long long i, const float* r) { *(unsigned short*)(p + i) = e4m3_pair(r[0], r[1]); }
__device__ __forceinline__ void store4(f8e4m3* p, long long i, const float* r) { *(unsigned*)(p + i) = e4m3_quad(r); }
__device__ __forceinline__ void store8(f8e4m3* p, long long i, const float* r) { *(uint2*)(p + i) = make_uint2(e4m3_quad(r), e4m3_quad(r + 4)); }
`;

/** Source that stands before every kernel: reading and writing elements of each dtype, sums over lanes and blocks. */
export const prelude = `${exactFunctions}${common}`;

/** The {@link prelude} of precisions in which products are rounded to 10 bits and fewer: division, roots and exponentials are fast. */
export const fastPrelude = `${fastFunctions}${common}`;
