"""Two priors as one: each for the noise levels that it is better at."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cvsa_jax.calibration import Calibration
from cvsa_jax.priors import Prior, denoiser_of, prior_from_denoiser
from cvsa_jax.spectral import Spectrum

KNOTS = np.geomspace(2e-3, 200.0, 24)


def _experts_denoise(low, high, limit, x, sigma):
    return jax.lax.cond(sigma > limit, high, low, x, sigma)


def _experts_mean(low, high, limit, x, v, c):
    return jax.lax.cond(c.noise > limit, high, low, x, v, c)


def experts(low: Prior, high: Prior, limit: float | None = None) -> Prior:
    """A prior that asks `low` up to a noise level and `high` above it; one of them is evaluated at each step.

    Args:
      low: for little noise. high: for much.
      limit: the noise level where they meet; None is the largest that `low` knows. Knowing more than `limit`, `low`
        is not asked for it.

    Returns: the prior. Its denoising error is that of whichever is asked; its spectrum is that of `low`, if it has one.

    Raises:
      ValueError: if there is no such level, `low` does not know it, the priors run different diffusions, take
        different channels, or `high` knows no more noise than `low`.
    """
    limit = low.highest_noise if limit is None else limit
    if limit is None:
        raise ValueError("the prior for little noise knows all noise: say where the other takes over")
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"the noise level where two priors meet must be positive, got {limit}")
    if low.highest_noise is not None and limit > low.highest_noise * (1 + 1e-6):
        raise ValueError(f"the prior for little noise knows noise up to {low.highest_noise:g}, not {limit:g}")
    if high.highest_noise is not None and high.highest_noise <= limit:
        raise ValueError(
            f"the prior for much noise knows noise up to {high.highest_noise:g}, which is not above {limit:g}"
        )
    if low.cld != high.cld:
        raise ValueError(f"the two priors run different diffusions, {low.cld} and {high.cld}")
    if low.channels != high.channels:
        raise ValueError(f"the two priors are of {low.channels} and of {high.channels} channels")
    size = (high if high.larger else low).image_size
    shapes = [(size << number,) * 2 for number in range(1, 1 + max(len(low.larger), len(high.larger)))] if size else []
    both_at = [(low.at(shape), high.at(shape)) for shape in shapes]
    level = jnp.asarray(limit, jnp.result_type(float))
    both = [denoiser_of(prior) for prior in (low, high)]
    if None in both:
        made = Prior(Partial(_experts_mean, low.mean, high.mean, level), low.cld)
    else:
        made = prior_from_denoiser(Partial(_experts_denoise, *both, level), low.cld)
    return dataclasses.replace(
        made,
        calibration=_joined(low, high, limit),
        spectrum=_first_spectrum(low, high),
        stride=math.lcm(low.stride, high.stride),
        channels=low.channels,
        highest_noise=high.highest_noise,
        image_size=size,
        larger=tuple(curve for each in both_at if (curve := _joined(*each, limit)) is not None),
        larger_spectra=tuple(s for each in both_at if (s := _first_spectrum(*each)) is not None),
    )


def _first_spectrum(low: Prior, high: Prior) -> Spectrum | None:
    return high.spectrum if low.spectrum is None else low.spectrum


def _joined(low: Prior, high: Prior, limit: float) -> Calibration | None:
    """The calibration of whichever prior is asked, with a step at the limit."""
    if low.calibration is None and high.calibration is None:
        return None
    below = np.unique([*KNOTS[limit > KNOTS], limit])
    above = np.unique([limit * (1 + 1e-4), *KNOTS[limit * (1 + 1e-3) < KNOTS]])
    errors = [p.error_variance(jnp.asarray(s, jnp.float32)) for p, s in ((low, below), (high, above))]
    return Calibration(np.concatenate([below, above]), np.concatenate(errors))
