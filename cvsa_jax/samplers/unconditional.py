"""Samples of a prior itself: the reverse process without a measurement."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.priors import Prior, coefficients
from cvsa_jax.samplers.base import to_device
from cvsa_jax.samplers.gaussian_bridge import ancestral
from cvsa_jax.types import Estimate, Info


def prior_mean(prior: Prior, times: np.ndarray) -> Callable:
    """E[x_0 | u_t] at the given times, as a sampler's conditional mean."""
    table = jax.tree.map(to_device, coefficients(prior.cld, times))

    def mean(x, v, index, dual=None):
        row = jax.tree.map(lambda a: a[index], table)
        return Estimate(prior.mean(x, v, row), Info(residual=jnp.zeros(())))

    return mean


def sample_prior(
    key: jax.Array,
    prior: Prior,
    image_shape: tuple[int, ...],
    times: np.ndarray,
    count: int,
    sampler: Callable = ancestral,
) -> jax.Array:
    """`count` independent samples, shape (count, *image_shape).

    Args:
      key: PRNG key.
      prior: any prior.
      image_shape: (H, W, C).
      times: a grid of `time_grid`.
      count: number of samples.
      sampler: a factory (cld, times) -> Sampler.

    Raises:
      ValueError: if the grid begins above the noise that the prior knows.

    A second call with a prior of the same network, grid and sampler uses the program of the first.
    """
    if prior.highest_noise is not None and prior.cld.effective_noise(times[0]) > prior.highest_noise * (1 + 1e-6):
        raise ValueError(f"samples begin at noise, but the prior knows noise up to {prior.highest_noise:g} alone")
    grid = tuple(float(t) for t in times)
    return _draw(prior, jax.random.split(key, count), tuple(image_shape), grid, sampler)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _draw(prior: Prior, keys: jax.Array, image_shape, times: tuple[float, ...], sampler: Callable) -> jax.Array:
    """A sample for each key; compiled once for a network, a grid and a sampler."""
    chain = sampler(prior.cld, np.array(times))
    mean = prior_mean(prior, chain.model_times)
    state = jax.vmap(lambda k: chain.init(k, image_shape))(keys)
    step = jax.vmap(lambda s, i: chain.step(s, i, mean)[0], (0, None))
    return jax.lax.scan(lambda s, i: (step(s, i), None), state, jnp.arange(len(chain.model_times)))[0].x
