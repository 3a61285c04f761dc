"""Reverse-time samplers: each a factory (cld, times) -> Sampler(init, step, ...)."""

from collections.abc import Callable

from cvsa_jax.samplers.annealing import decoupled
from cvsa_jax.samplers.base import Loop, Sampler, run_steps
from cvsa_jax.samplers.corrections import with_corrections
from cvsa_jax.samplers.explicit import euler_maruyama
from cvsa_jax.samplers.flow_steps import ddim, multistep
from cvsa_jax.samplers.gaussian_bridge import ancestral, ancestral_multistep
from cvsa_jax.samplers.monte_carlo import particles
from cvsa_jax.samplers.splitting import sscs
from cvsa_jax.samplers.unconditional import prior_mean, sample_prior

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "euler_maruyama": euler_maruyama,
    "sscs": sscs,
    "ancestral": ancestral,
    "ancestral_multistep": ancestral_multistep,
    "ddim": ddim,
    "multistep": multistep,
    "decoupled": decoupled,
    "particles": particles,
}

__all__ = [
    "SAMPLERS",
    "Loop",
    "Sampler",
    "ancestral",
    "ancestral_multistep",
    "ddim",
    "decoupled",
    "euler_maruyama",
    "multistep",
    "particles",
    "prior_mean",
    "run_steps",
    "sample_prior",
    "sscs",
    "with_corrections",
]
