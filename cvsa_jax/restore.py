"""The loop: one `lax.scan` of a sampler's steps over the state (x, v, key)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.diffusion import SMALLEST_TIME, time_grid
from cvsa_jax.guidance import conditional_mean
from cvsa_jax.priors import Prior
from cvsa_jax.samplers import SAMPLERS, Sampler
from cvsa_jax.types import Info, Operator, State


class Restoration(NamedTuple):
    """image: (H, W, C) in about [-1, 1]. trace: Info stacked over the steps."""

    image: jax.Array
    trace: Info


def guided_sampler(
    measurement: jax.Array,
    operator: Operator,
    prior: Prior,
    *,
    noise_std,
    num_steps: int = 100,
    sampler: str = "ancestral",
    guidance: str = "covariance",
    time_grid_name: str = "logarithmic",
    t_start: float = 1.0,
    t_end: float = SMALLEST_TIME,
) -> Sampler:
    """The (init, step) pair of one restoration, for those who run the loop themselves.

    Arguments and errors as for `restore`.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if isinstance(noise_std, (int, float, np.ndarray)) and not np.all(np.asarray(noise_std) > 0):
        raise ValueError(f"noise_std must be positive, got {noise_std}; the rounding to 8 bits alone is .0023")
    times = time_grid(time_grid_name, num_steps, prior.cld, t_start, t_end)
    factory = SAMPLERS[sampler]
    model_times = factory(prior.cld, times, None).model_times
    mean = conditional_mean(measurement, operator, prior, noise_std, guidance, model_times, times[:-1] - times[1:])
    return factory(prior.cld, times, mean)


def run_steps(sampler: Sampler, state: State, start, count: int) -> tuple[State, Info]:
    """Steps start, ..., start + count - 1 as one scan; chunks join to the same bits."""
    return jax.lax.scan(sampler.step, state, start + jnp.arange(count))


def restore(
    key: jax.Array,
    measurement: jax.Array,
    operator: Operator,
    prior: Prior,
    *,
    image_shape: tuple[int, int, int],
    noise_std: float,
    num_steps: int = 100,
    sampler: str = "ancestral",
    guidance: str = "covariance",
    time_grid: str = "logarithmic",
    t_start: float = 1.0,
    t_end: float = SMALLEST_TIME,
) -> Restoration:
    """Restore one image x from y = H(x) + noise_std n. Pure: works under jit, vmap and grad.

    Args:
      key: PRNG key; all randomness comes from it.
      measurement: y, of the shape of H(x).
      operator: H, any JAX function of one image (H, W, C).
      prior: the prior.
      image_shape: (H, W, C) of x; H and W as the prior's network needs them.
      noise_std: > 0, on the scale of images in [-1, 1].
      num_steps: steps of the reverse process, one network evaluation each.
      sampler: name in SAMPLERS.
      guidance: name in GUIDANCES.
      time_grid: name in TIME_GRIDS.
      t_start, t_end: first and last time at which the prior is asked.

    Returns: the restored image, and per step the residual.

    Raises:
      ValueError: on an unknown name or a value out of range, before anything compiles.

    Example:
      For a batch: `jax.vmap(lambda k, y: restore(k, y, operator, prior, ...))(keys, ys)`.
    """
    chain = guided_sampler(
        measurement,
        operator,
        prior,
        noise_std=noise_std,
        num_steps=num_steps,
        sampler=sampler,
        guidance=guidance,
        time_grid_name=time_grid,
        t_start=t_start,
        t_end=t_end,
    )
    state, trace = run_steps(chain, chain.init(key, image_shape), 0, num_steps)
    return Restoration(state.x, trace)
