import type { Parameters } from '../../nn/parameters.ts';
import { at } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { type AutoencoderSpec, decode, encode, type Posterior } from './autoencoder.ts';
import type { AutoencoderConfig } from './config.ts';

/** Shares of the terms of {@link autoencoderLoss}; the reconstruction's own is 1. */
export interface AutoencoderLossWeights {
  /** Squared error, which PSNR counts: {@link charbonnier} alone gives up on what is small and bright. Default 0. */
  readonly square?: number;
  /** Differences between neighbours in time, height and width: sharp edges and quiet stills. Default 0.1. */
  readonly gradient?: number;
  /** Divergence of the latents' distribution from a standard normal one, per latent value. Default 5e-4. */
  readonly kl?: number;
}

/** What a training step needs and reports; all but the reconstruction are f32 scalars. */
export interface AutoencoderLoss {
  readonly loss: Tensor;
  /** [B, T, H, W, 3], decoded from the sampled latents. */
  readonly reconstruction: Tensor;
  /** Mean over pixels of {@link charbonnier} of the error. */
  readonly pixel: Tensor;
  readonly gradient: Tensor;
  readonly kl: Tensor;
  /** Mean squared error on the scale of -1 to 1; the PSNR of the batch in decibels is 10 log10(4 / it). */
  readonly squaredError: Tensor;
}

/** Shares of the terms where a caller or a recipe says nothing. */
export const autoencoderLossDefaults = { square: 0, gradient: 0.1, kl: 5e-4 } as const;

/**
 * The loss of a variational autoencoder (Kingma & Welling 2014): video [B, 1+4k, H, W, 3] in -1 to 1, and standard normal
 * noise [B, 1+k, H/8, W/8, C] drawn on the host.
 */
export function autoencoderLoss(
  p: Parameters<AutoencoderSpec>,
  config: AutoencoderConfig,
  video: Tensor,
  noise: Tensor,
  weights: AutoencoderLossWeights = {},
): AutoencoderLoss {
  const share = { ...autoencoderLossDefaults, ...weights };
  const posterior = encode(p, config, video);
  const reconstruction = decode(p, config, sampleLatents(posterior, noise));
  const error = reconstruction.sub(video);
  const pixel = charbonnier(error).mean();
  const gradient = gradientError(error);
  const kl = divergence(posterior).mean();
  const squaredError = error.square().mean();
  const loss = pixel
    .add(squaredError.mul(share.square))
    .add(gradient.mul(share.gradient))
    .add(kl.mul(share.kl));
  return { loss, reconstruction, pixel, gradient, kl, squaredError };
}

/** mean + deviation noise: latents drawn from the posterior (Kingma & Welling 2014, section 2.4). */
export function sampleLatents({ mean, logVariance }: Posterior, noise: Tensor): Tensor {
  return mean.add(bounded(logVariance).mul(0.5).exp().mul(noise));
}

/** sqrt(x^2 + 0.001^2) elementwise: |x| with a smooth bottom (Charbonnier et al. 1994). */
export function charbonnier(x: Tensor): Tensor {
  return x.square().add(1e-6).sqrt();
}

/** Mean of |difference of neighbours| of an error [B, T, H, W, 3], summed over the axes that have neighbours. */
function gradientError(error: Tensor): Tensor {
  const along = (axis: number) => {
    const size = at(error.shape, axis);
    return charbonnier(error.slice(axis, 1).sub(error.slice(axis, 0, size - 1))).mean();
  };
  const axes = [1, 2, 3].filter((axis) => at(error.shape, axis) > 1);
  return axes.map(along).reduce((sum, term) => sum.add(term));
}

/** KL divergence of the posterior from a standard normal distribution, per latent value (Kingma & Welling 2014, appendix B). */
function divergence({ mean, logVariance }: Posterior): Tensor {
  const bound = bounded(logVariance);
  return mean.square().add(bound.exp()).sub(bound).sub(1).mul(0.5);
}

/** Keeps the exponential of a log variance finite. */
function bounded(logVariance: Tensor): Tensor {
  return logVariance.maximum(-20).minimum(10);
}
