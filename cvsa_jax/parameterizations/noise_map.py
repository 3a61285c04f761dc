"""Gaussian denoisers of images in [0, 1], told the noise level there: FFDNet, DRUNet, DnCNN."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from cvsa_jax.diffusion import CLD
from cvsa_jax.parameterizations.base import Described, Network, Parameterization, Static
from cvsa_jax.priors import Prior, prior_from_denoiser


def map_denoise(
    network: Network, lowest: float, highest: float, params, x: jax.Array, sigma: jax.Array | float
) -> jax.Array:
    """D(x; s) = 2 F((x + 1)/2, s/2) - 1 for one image x (H, W, C), at the noise levels s that F knows.

    Above them F is used at its highest, on x as it is: it leaves noise there, and no diffusion should start so high.

    Below them, where only a network of one level or of a range above zero is asked, its step at its lowest level is
    shortened until it takes away the noise's own energy and no more: x + min(1, s^2 / mean (F - x)^2) (F - x). The
    length that brings a step closest to x_0 is s^2 (1 - div F / N) / mean (F - x)^2 by Stein's lemma, and a denoiser's
    divergence is small beside the number of pixels N. This is no posterior mean, but near to one at both ends: x as
    s goes to 0, and F at its own level. (FFDNet kept at 25/255, on photographs: within .1 dB of the best length at
    every s, where the bare F stays at the 32 dB of its own level.)

    Args:
      network: F of a batch, both images in [0, 1]; params: its parameters.
      lowest, highest: the levels that it knows, in [-1, 1].
      sigma: s, a number.
    """
    level = jnp.clip(jnp.asarray(sigma, x.dtype), lowest, highest)
    known = 2 * network(params, (x[None] + 1) / 2, level[None] / 2)[0] - 1
    if not lowest:
        return known
    power = jnp.asarray(sigma, x.dtype) ** 2
    step = known - x
    shortened = power / jnp.maximum(jnp.mean(step**2), jnp.maximum(power, jnp.finfo(x.dtype).tiny))
    return x + jnp.where(sigma < lowest, shortened, 1.0) * step


def _prior(spec: Described, network: Network, params, cld: CLD) -> Prior:
    levels = float(spec.constants["lowest_noise"]), float(spec.constants["highest_noise"])
    return prior_from_denoiser(Partial(Static(map_denoise, (network, *levels)), params), cld)


# bfloat16 has 8 bits: an image in [0, 1] would be rounded to 46 dB.
NOISE_MAP = Parameterization(
    _prior, "the image or its noise in [0, 1], told the noise level there or finding it", exact=True
)
