import { expectShape } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';

/**
 * Rectified flow's straight path from data to noise: (1 - t) x + t e (Liu et al. 2022; Lipman et al. 2022). Its velocity
 * along t is e - x, which the model learns.
 *
 * @param clean data x, [B, V, P].
 * @param noise standard normal e, [B, V, P].
 * @param timesteps t of each token, [B, V]; tokens of timestep 0 stay clean.
 * @returns [B, V, P].
 */
export function noised(clean: Tensor, noise: Tensor, timesteps: Tensor): Tensor {
  const { B, V } = expectShape(timesteps, 'B V', {}, 'timesteps');
  return clean.add(noise.sub(clean).mul(timesteps.reshape([B, V, 1])));
}

/** A batch of the flow loss, each tensor of video tokens in packed order. */
export interface FlowBatch<Leaf> {
  /** Data, normalised latents, [B, V, P]. */
  readonly clean: Leaf;
  /** Standard normal, [B, V, P]. */
  readonly noise: Leaf;
  /** [B, V]; 0 for known tokens and padding. */
  readonly timesteps: Leaf;
  /** Share of each token in the loss, at least 0, [B, V]; 0 for known tokens and padding. */
  readonly weights: Leaf;
}

/** What {@link flowLoss} gives. */
export interface FlowLoss {
  /** Mean over tokens by their weights, f32 scalar. */
  readonly loss: Tensor;
  /** Mean squared error of each token's velocity, [B, V], unweighted: for loss by timestep. */
  readonly errors: Tensor;
}

/**
 * Squared error of the velocity (rectified flow, Liu et al. 2022, eq. 1), averaged over tokens, not samples: a token
 * counts the same whatever the length of its video, so that a batch's gradient has the least variance. A batch whose
 * weights add up to less than 1 gives their plain sum.
 *
 * @param velocity the model's, from noised patches [B, V, P] and timesteps [B, V], [B, V, P].
 */
export function flowLoss(
  velocity: (patches: Tensor, timesteps: Tensor) => Tensor,
  { clean, noise, timesteps, weights }: FlowBatch<Tensor>,
): FlowLoss {
  const { B, V } = expectShape(clean, 'B V P', {}, 'clean patches');
  expectShape(weights, 'B V', { B, V }, 'weights');
  const found = velocity(noised(clean, noise, timesteps), timesteps); // [B, V, P]
  const errors = found.sub(noise.sub(clean)).square().mean([-1]); // [B, V]
  return { loss: errors.mul(weights).sum().div(weights.sum().maximum(1)), errors };
}
