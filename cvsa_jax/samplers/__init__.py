"""Reverse-time samplers: each a factory (cld, times, conditional_mean) -> Sampler(init, step)."""

from collections.abc import Callable

from cvsa_jax.samplers.ancestral import ancestral
from cvsa_jax.samplers.base import Sampler
from cvsa_jax.samplers.ddim import ddim
from cvsa_jax.samplers.euler_maruyama import euler_maruyama
from cvsa_jax.samplers.sscs import sscs
from cvsa_jax.samplers.unconditional import prior_mean, sample_prior

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "euler_maruyama": euler_maruyama,
    "sscs": sscs,
    "ancestral": ancestral,
    "ddim": ddim,
}

__all__ = ["SAMPLERS", "Sampler", "ancestral", "ddim", "euler_maruyama", "prior_mean", "sample_prior", "sscs"]
