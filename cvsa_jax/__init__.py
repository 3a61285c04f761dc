"""Image restoration with a critically-damped Langevin diffusion prior, in JAX."""

from cvsa_jax.checkpoints import load_prior
from cvsa_jax.closed_form import Gaussian, GaussianMixture
from cvsa_jax.diffusion import CLD, time_grid
from cvsa_jax.priors import (
    Calibration,
    Prior,
    prior_from_denoiser,
    prior_from_velocity_network,
)
from cvsa_jax.restore import Restoration, guided_sampler, restore, run_steps
from cvsa_jax.types import Info, State
from cvsa_jax.version import __version__

__all__ = [
    "CLD",
    "Calibration",
    "Gaussian",
    "GaussianMixture",
    "Info",
    "Prior",
    "Restoration",
    "State",
    "__version__",
    "guided_sampler",
    "load_prior",
    "prior_from_denoiser",
    "prior_from_velocity_network",
    "restore",
    "run_steps",
    "time_grid",
]
