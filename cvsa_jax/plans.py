"""The part of a loop that is the same for every measurement: its times, and its sampler with its tables."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cvsa_jax.diffusion import CLD, time_grid
from cvsa_jax.priors import Prior
from cvsa_jax.pyramid import levels_of
from cvsa_jax.sampler_settings import COARSE, NOISE, SOLUTION, SamplerSettings
from cvsa_jax.samplers import SAMPLERS, Sampler, with_corrections

# What a restored small image is diffused to, on its own pixels: enough to draw its detail afresh, not its things.
COARSE_NOISE = 0.5


class Plan(NamedTuple):
    """A loop without its measurement: the settings, the times (num_steps + 1,) and the sampler with its tables."""

    settings: SamplerSettings
    times: np.ndarray
    sampler: Sampler


def make_plan(settings: SamplerSettings, cld: CLD, highest_noise: float | None = None) -> Plan:
    """The part of a loop that is the same for every measurement; its tables are made once.

    Args:
      settings: of the loop. cld: the diffusion.
      highest_noise: the largest noise that the prior knows; the loop begins there if it would begin above.

    Raises:
      ValueError: if the settings do not go together.
    """
    settings = within(settings, cld, highest_noise)
    times = time_grid(settings.time_grid, settings.num_steps, cld, settings.t_start, settings.t_end)
    factory, options = _factory(settings), {}
    name = settings.sampler if isinstance(settings.sampler, str) else getattr(factory, "__name__", "the sampler")
    if takes_particles(settings):
        if settings.num_particles is None:
            raise ValueError(f"{name} needs num_particles")
        options = {"num_particles": settings.num_particles}
    elif settings.num_particles is not None:
        raise ValueError(f"num_particles is for a population of particles, and {name} is none")
    sampler = factory(cld, times, **options)
    if sampler.population and settings.start != NOISE:
        limit = "" if highest_noise is None else f", but the prior knows noise up to {highest_noise:g} alone"
        raise ValueError(f"{name} starts from noise{limit}")
    if settings.num_corrections:
        sampler = with_corrections(sampler, cld, times, settings.num_corrections)
    return Plan(settings, times, sampler)


def within(settings: SamplerSettings, cld: CLD, highest_noise: float | None) -> SamplerSettings:
    """The same settings, begun at the highest noise that a prior knows, at a guess, if they begin above it.

    Raises:
      ValueError: if they would end above it too.
    """
    if highest_noise is None or cld.effective_noise(settings.t_start) <= highest_noise * (1 + 1e-6):
        return settings
    start = float(cld.time_of_noise(highest_noise))
    if start <= settings.t_end:
        raise ValueError(f"t_end={settings.t_end:g} is above the noise {highest_noise:g} that the prior knows")
    guess = SOLUTION if settings.start in (NOISE, COARSE) else settings.start
    return dataclasses.replace(settings, t_start=start, start=guess)


def enlargement(image_size: int | None, image_shape: tuple[int, ...]) -> int:
    """By which power of two an image (H, W, C) exceeds those of a prior's own side; 1 if that is not known."""
    return 2 ** levels_of(image_shape, image_size)


def of_size(plan: Plan, prior: Prior, image_shape: tuple[int, ...]) -> Plan:
    """The plan of images (H, W, C). Of those that begin with a small one, by a factor of `enlargement`, the noise at
    the start is COARSE_NOISE * factor at most, which on its pixels is COARSE_NOISE; others of them begin at noise."""
    if plan.settings.start != COARSE:
        return plan
    factor = enlargement(prior.image_size, image_shape)
    if factor == 1:
        return plan._replace(settings=dataclasses.replace(plan.settings, start=NOISE))
    start = float(prior.cld.time_of_noise(COARSE_NOISE * factor))
    return make_plan(dataclasses.replace(plan.settings, t_start=min(plan.settings.t_start, start)), prior.cld)


def _factory(settings: SamplerSettings) -> Callable[..., Sampler]:
    return SAMPLERS[settings.sampler] if isinstance(settings.sampler, str) else settings.sampler


def takes_particles(settings: SamplerSettings) -> bool:
    """Whether the sampler runs a population, whose size it must be told."""
    return "num_particles" in inspect.signature(_factory(settings)).parameters


def evaluations_of(settings: SamplerSettings) -> int:
    """Network evaluations of one step."""
    few = dataclasses.replace(settings, num_steps=2)  # the same for any number, and tables of two are quickly made
    return make_plan(few, CLD()).sampler.evaluations
