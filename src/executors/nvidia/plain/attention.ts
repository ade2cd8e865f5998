import { at } from '../../../tensor/shape.ts';
import { type NodeOf, resultsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Stage } from '../kernel.ts';
import type { Storage } from '../storage.ts';
import { literal } from './expression.ts';
import { namedKernel } from './named-kernel.ts';

/**
 * Attention in float32, a warp for each query or key, its scores in shared memory: exact and slow, for strict precision
 * and shapes that cuDNN has no engine for.
 */
export function attentionKernels(
  node: NodeOf<'attention'> | NodeOf<'attentionGradient'>,
  storage: Storage,
): readonly Stage[] {
  const [q, k] = node.operands;
  if (storage(q) !== 'f32') throw new Error(`attention has no kernel for ${storage(q)}`);
  const [B, S, H, D] = [at(q.shape, 0), at(q.shape, 1), at(q.shape, 2), at(q.shape, 3)];
  const T = at(k.shape, 1);
  const segments = node.op === 'attention' ? node.operands[3] : node.operands[6];
  const scale = literal(node.attributes.scale, 'f32');
  const shared = 4 * 2 * Math.max(S, T);
  const range = segments === undefined ? wholeRange(T) : segmentRange(at(segments.shape, 1));
  const reversed = segments === undefined ? wholeRange(S) : range;
  const given = segments === undefined ? [] : [segments];
  const extra = segments === undefined ? '' : ', const int* segments';
  const stage = (
    kernel: string,
    inputs: readonly Tensor[],
    outputs: readonly Tensor[],
    parameters: string,
    tokens: number,
    body: string,
  ): Stage => ({
    kind: 'kernel',
    kernel: namedKernel(
      kernel,
      `(${parameters}) {
  extern __shared__ float memory[];
  const int lane = threadIdx.x, token = blockIdx.x % ${tokens}, h = (blockIdx.x / ${tokens}) % ${H}, b = blockIdx.x / ${tokens * H};
  ${body}
}`,
      [Math.max(1, B * H * tokens), 1, 1],
      [32, 1, 1],
      shared,
    ),
    inputs,
    outputs,
  });
  const at2 = (tokens: number, token: string) => `((b * ${tokens}LL + ${token}) * ${H} + h) * ${D}LL`;
  const dot = (a: string, b: string) => `{ for (int d = 0; d < ${D}; d++) sum += ${a}[d] * ${b}[d]; }`;
  if (node.op === 'attention') {
    const [y, logSum] = resultsOf(node) as [Tensor, Tensor];
    return [
      stage(
        'attention',
        [node.operands[0], node.operands[1], node.operands[2], ...given],
        [y, logSum],
        `const float* q, const float* k, const float* v${extra}, float* y, float* logSum`,
        S,
        `${range}
  const float* query = q + ${at2(S, 'token')};
  float most = -INF;
  for (int t = first + lane; t < last; t += 32) {
    const float* key = k + ${at2(T, 't')};
    float sum = 0.0f; ${dot('query', 'key')}
    memory[t] = sum * ${scale};
    most = larger(most, memory[t]);
  }
  most = warp_max(most);
  float total = 0.0f;
  for (int t = first + lane; t < last; t += 32) { memory[t] = expf(memory[t] - most); total += memory[t]; }
  total = warp_sum(total);
  __syncwarp();
  for (int d = lane; d < ${D}; d += 32) {
    float sum = 0.0f;
    for (int t = first; t < last; t++) sum += memory[t] * v[${at2(T, 't')} + d];
    y[${at2(S, 'token')} + d] = last > first ? sum / total : 0.0f;
  }
  if (lane == 0) logSum[(b * ${H}LL + h) * ${S} + token] = last > first ? most + logf(total) : 0.0f;`,
      ),
    ];
  }
  const [dq, dk, dv] = resultsOf(node) as [Tensor, Tensor, Tensor];
  const inputs = [...node.operands.slice(0, 6), ...given] as Tensor[];
  const parameters = `const float* q, const float* k, const float* v, const float* y, const float* logSum, const float* dy${extra}`;
  const ofQuery = (s: string) => `const float* query = q + ${at2(S, s)};
    const float* dOut = dy + ${at2(S, s)};
    const float* out = y + ${at2(S, s)};`;
  const probability = `float sum = 0.0f; ${dot('query', 'key')}
    const float p = expf(sum * ${scale} - norm);
    sum = 0.0f; ${dot('dOut', 'value')}`;
  return [
    stage(
      'attention_dq',
      inputs,
      [dq],
      `${parameters}, float* dq`,
      S,
      `${range}
  ${ofQuery('token')}
  const float norm = logSum[(b * ${H}LL + h) * ${S} + token];
  float centre = 0.0f;
  for (int d = 0; d < ${D}; d++) centre += dOut[d] * out[d];
  for (int t = first + lane; t < last; t += 32) {
    const float* key = k + ${at2(T, 't')};
    const float* value = v + ${at2(T, 't')};
    ${probability}
    memory[t] = ${scale} * p * (sum - centre);
  }
  __syncwarp();
  for (int d = lane; d < ${D}; d += 32) {
    float sum = 0.0f;
    for (int t = first; t < last; t++) sum += memory[t] * k[${at2(T, 't')} + d];
    dq[${at2(S, 'token')} + d] = sum;
  }`,
    ),
    stage(
      'attention_dkv',
      inputs,
      [dk, dv],
      `${parameters}, float* dk, float* dv`,
      T,
      `${reversed}
  const float* key = k + ${at2(T, 'token')};
  const float* value = v + ${at2(T, 'token')};
  for (int s = first + lane; s < last; s += 32) {
    ${ofQuery('s')}
    const float norm = logSum[(b * ${H}LL + h) * ${S} + s];
    float centre = 0.0f;
    for (int d = 0; d < ${D}; d++) centre += dOut[d] * out[d];
    ${probability}
    memory[2 * s] = ${scale} * p * (sum - centre);
    memory[2 * s + 1] = p;
  }
  __syncwarp();
  for (int d = lane; d < ${D}; d += 32) {
    float keySum = 0.0f, valueSum = 0.0f;
    for (int s = first; s < last; s++) {
      keySum += memory[2 * s] * q[${at2(S, 's')} + d];
      valueSum += memory[2 * s + 1] * dy[${at2(S, 's')} + d];
    }
    dk[${at2(T, 'token')} + d] = keySum;
    dv[${at2(T, 'token')} + d] = valueSum;
  }`,
    ),
  ];
}

function wholeRange(tokens: number): string {
  return `const int first = 0, last = ${tokens};`;
}

/** The segment of `token`: the last one that starts at or before it, empty outside all. */
function segmentRange(offsets: number): string {
  return `int segment = -1;
  for (int n = 0; n < ${offsets}; n++) if (segments[b * ${offsets} + n] <= token) segment = n;
  const bool isInside = segment >= 0 && segment < ${offsets - 1};
  const int first = isInside ? segments[b * ${offsets} + segment] : 0, last = isInside ? segments[b * ${offsets} + segment + 1] : 0;`;
}
