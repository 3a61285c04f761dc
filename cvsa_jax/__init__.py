"""Image restoration with a critically-damped Langevin diffusion prior, in JAX."""

from cvsa_jax.adapters import as_denoiser, cosine_kept, exploding, linear_kept, preserving
from cvsa_jax.checkpoints import LoadedPrior, load_prior
from cvsa_jax.closed_form import Gaussian, GaussianMixture
from cvsa_jax.denoising import calibrate
from cvsa_jax.diffusion import CLD, time_grid
from cvsa_jax.guidance import GUIDANCES, Problem, Solution
from cvsa_jax.noise import GaussianNoise, NoiseModel, PoissonGaussianNoise, PoissonNoise
from cvsa_jax.operators import TASKS, Operator, check_operator, make_operator, register_task, simulate
from cvsa_jax.posterior import coverage, sample_posterior, summarise
from cvsa_jax.presets import preset_of
from cvsa_jax.priors import Calibration, Prior, prior_from_denoiser, prior_from_velocity_network
from cvsa_jax.restoration import Restoration, guided_sampler, restore
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.samplers import SAMPLERS, Loop, Sampler, run_steps
from cvsa_jax.types import Info, State
from cvsa_jax.version import __version__

__all__ = [
    "CLD",
    "GUIDANCES",
    "SAMPLERS",
    "TASKS",
    "Calibration",
    "Gaussian",
    "GaussianMixture",
    "GaussianNoise",
    "Info",
    "LoadedPrior",
    "Loop",
    "NoiseModel",
    "Operator",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "Prior",
    "Problem",
    "Restoration",
    "Sampler",
    "SamplerSettings",
    "Solution",
    "State",
    "__version__",
    "as_denoiser",
    "calibrate",
    "check_operator",
    "cosine_kept",
    "coverage",
    "exploding",
    "guided_sampler",
    "linear_kept",
    "load_prior",
    "make_operator",
    "preserving",
    "preset_of",
    "prior_from_denoiser",
    "prior_from_velocity_network",
    "register_task",
    "restore",
    "run_steps",
    "sample_posterior",
    "simulate",
    "summarise",
    "time_grid",
]
