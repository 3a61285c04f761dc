"""Reverse-time samplers: each a factory (cld, times, conditional_mean) -> Sampler(init, step)."""

from collections.abc import Callable

from cvsa_jax.samplers.ancestral import ancestral, ancestral_multistep
from cvsa_jax.samplers.base import Sampler
from cvsa_jax.samplers.corrections import with_corrections
from cvsa_jax.samplers.ddim import ddim, multistep
from cvsa_jax.samplers.decoupled import decoupled
from cvsa_jax.samplers.euler_maruyama import euler_maruyama
from cvsa_jax.samplers.particles import particles
from cvsa_jax.samplers.sscs import sscs
from cvsa_jax.samplers.unconditional import prior_mean, sample_prior

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "euler_maruyama": euler_maruyama,
    "sscs": sscs,
    "ancestral": ancestral,
    "ancestral_multistep": ancestral_multistep,
    "ddim": ddim,
    "multistep": multistep,
    "decoupled": decoupled,
}
# These run many chains together and return all of them, (P, H, W, C).
POPULATION_SAMPLERS: dict[str, Callable[..., Sampler]] = {"particles": particles}

__all__ = [
    "POPULATION_SAMPLERS",
    "SAMPLERS",
    "Sampler",
    "ancestral",
    "ancestral_multistep",
    "ddim",
    "decoupled",
    "euler_maruyama",
    "multistep",
    "particles",
    "prior_mean",
    "sample_prior",
    "sscs",
    "with_corrections",
]
