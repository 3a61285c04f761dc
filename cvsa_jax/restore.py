"""The loop: one `lax.scan` of a sampler's steps over the state (x, v, key)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cvsa_jax.diffusion import SMALLEST_TIME, time_grid
from cvsa_jax.guidance import conditional_mean, first_dual
from cvsa_jax.noise import NoiseModel, as_noise, require_positive
from cvsa_jax.priors import Prior
from cvsa_jax.samplers import POPULATION_SAMPLERS, SAMPLERS, Sampler, with_corrections
from cvsa_jax.samplers.base import diffuse
from cvsa_jax.types import Info, Operator, State

STARTS = ("noise", "guess")


class Restoration(NamedTuple):
    """image: (H, W, C) in about [-1, 1], (P, H, W, C) of particles. trace: Info stacked over the steps."""

    image: jax.Array
    trace: Info


def guided_sampler(
    measurement: jax.Array,
    operator: Operator,
    prior: Prior,
    *,
    noise_std,
    num_steps: int = 100,
    sampler: str = "decoupled",
    guidance: str = "spectral_covariance",
    time_grid_name: str = "logarithmic",
    t_start: float = 1.0,
    t_end: float = SMALLEST_TIME,
    num_corrections: int = 0,
    num_particles: int | None = None,
    start: str = "noise",
    data_weight: float = 1.0,
) -> Sampler:
    """The (init, step) pair of one restoration, for those who run the loop themselves.

    Arguments and errors as for `restore`.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    if start == "guess" and sampler in POPULATION_SAMPLERS:
        raise ValueError(f"{sampler} starts from noise")
    if start == "guess" and not hasattr(operator, "first_guess"):
        raise ValueError("this operator has no first guess to start from; start from noise")
    factory = _factory(sampler, num_particles)
    as_noise(noise_std).check()
    require_positive("data_weight", data_weight)
    if num_corrections < 0 or (num_corrections and sampler in POPULATION_SAMPLERS):
        raise ValueError(f"num_corrections must be 0 or more, and 0 for particles, got {num_corrections}")
    times = time_grid(time_grid_name, num_steps, prior.cld, t_start, t_end)
    model_times = factory(prior.cld, times, None).model_times
    mean = conditional_mean(
        measurement, operator, prior, noise_std, guidance, model_times, times[:-1] - times[1:], data_weight
    )
    chain = factory(prior.cld, times, mean)
    if num_corrections:
        chain = with_corrections(chain, prior.cld, times, mean, num_corrections)

    def begin(key, image_shape):
        if start == "noise":
            return chain.init(key, image_shape)
        guess_key, noise_key, init_key = jax.random.split(key, 3)
        guess = _fit(operator.first_guess(measurement, guess_key), image_shape)
        x, v = diffuse(prior.cld, t_start, guess, noise_key)
        return chain.init(init_key, image_shape)._replace(x=x, v=v)

    def init(key, image_shape):
        state, dual = begin(key, image_shape), first_dual(measurement, guidance)
        if dual is not None:
            dual = jnp.broadcast_to(dual, state.x.shape[: state.x.ndim - len(image_shape)] + dual.shape)
        return state._replace(dual=dual)

    return chain._replace(init=init)


def _fit(image: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """An image on a canvas of that shape, its border and, if it is grey, its channel repeated."""
    margins = ((0, shape[0] - image.shape[0]), (0, shape[1] - image.shape[1]), (0, 0))
    return jnp.broadcast_to(jnp.pad(image, margins, mode="edge"), shape)


def _factory(sampler: str, num_particles: int | None):
    if sampler in SAMPLERS:
        return SAMPLERS[sampler]
    if sampler not in POPULATION_SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join((*SAMPLERS, *POPULATION_SAMPLERS))}, got {sampler!r}")
    if num_particles is None:
        raise ValueError(f"{sampler} needs num_particles")
    return functools.partial(POPULATION_SAMPLERS[sampler], num_particles=num_particles)


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
    noise_std: float | NoiseModel,
    num_steps: int = 100,
    sampler: str = "decoupled",
    guidance: str = "spectral_covariance",
    time_grid: str = "logarithmic",
    t_start: float = 1.0,
    t_end: float = SMALLEST_TIME,
    num_corrections: int = 0,
    num_particles: int | None = None,
    start: str = "noise",
    data_weight: float = 1.0,
) -> Restoration:
    """Restore one image x from y = H(x) + noise_std n. Pure: works under jit, vmap and grad.

    Args:
      key: PRNG key; all randomness comes from it.
      measurement: y, of the shape of H(x).
      operator: H, any JAX function of one image (H, W, C).
      prior: the prior.
      image_shape: (H, W, C) of x; H and W as the prior's network needs them.
      noise_std: > 0, on the scale of images in [-1, 1]; or a `PoissonNoise`.
      num_steps: steps of the reverse process, one network evaluation each.
      sampler: name in SAMPLERS or POPULATION_SAMPLERS: 'decoupled' has the least error,
        'ancestral_multistep' the posterior's spread.
      guidance: name in GUIDANCES.
      time_grid: name in TIME_GRIDS.
      t_start, t_end: first and last time at which the prior is asked.
      num_corrections: Langevin steps at each noise level before the sampler's own.
      num_particles: of `particles`, which returns all of them, (P, H, W, C).
      start: 'noise', or 'guess' for the operator's own `first_guess`, diffused to t_start.
      data_weight: w of the posterior p(x) p(y | x)^w that guides, > 0. 1 is Bayes' rule, and right for the prior
        that images really have; a network is smoother than they are, and about 2 then comes nearer to the truth
        (Bissiri, Holmes, Walker (2016), A general framework for updating belief distributions).

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
        num_corrections=num_corrections,
        num_particles=num_particles,
        start=start,
        data_weight=data_weight,
    )
    state, trace = run_steps(chain, chain.init(key, image_shape), 0, num_steps)
    return Restoration(state.x, trace)
