"""What all samplers share: the (init, step) pair, its loop, the start, the float32 tables."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.types import ConditionalMean, Info, State


class Sampler(NamedTuple):
    """A reverse-time sampler, made by (cld, times) -> Sampler; times: decreasing, (num_steps + 1,), ending in 0.

    init: (key, image_shape) -> State, drawn at the first time of the grid.
    step: (State, index, mean) -> (State, Info), from time `index` of the grid to the next; mean is a
      `ConditionalMean` at model_times.
    model_times: (num_steps,), the times at which `step` asks for E[x_0 | u_t, y].
    evaluations: of the network, in one step.
    posterior: whether its samples are, as the steps grow many, those of the posterior.
    population: whether one chain is of many particles, all of which it returns, (P, H, W, C).
    """

    init: Callable[[jax.Array, tuple[int, ...]], State]
    step: Callable[[State, jax.Array, ConditionalMean], tuple[State, Info]]
    model_times: np.ndarray
    evaluations: int = 1
    posterior: bool = True
    population: bool = False


class Loop(NamedTuple):
    """One restoration, ready to run: `run_steps` scans its step.

    init: (key, image_shape) -> State. step: (State, index) -> (State, Info).
    """

    init: Callable[[jax.Array, tuple[int, ...]], State]
    step: Callable[[State, jax.Array], tuple[State, Info]]


def run_steps(loop: Loop, state: State, start, count: int) -> tuple[State, Info]:
    """Steps start, ..., start + count - 1 as one scan; chunks join to the same bits."""
    return jax.lax.scan(loop.step, state, start + jnp.arange(count))


def stationary_init(cld: CLD) -> Callable:
    """x ~ N(0, I), v ~ N(0, M I): the diffusion's limit, where the reverse process starts."""

    def init(key: jax.Array, image_shape: tuple[int, ...]) -> State:
        x_key, v_key, chain_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, image_shape)
        v = cld.mass**0.5 * jax.random.normal(v_key, image_shape)
        return State(x, v, chain_key)

    return init


def diffuse(cld: CLD, time: float, image: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(x, v) ~ N(a_t image, S_t): where the forward diffusion of an image is at `time`."""
    direction, factor = to_device(cld.data_direction(time)), to_device(cholesky(cld.covariance(time)))
    x_key, v_key = jax.random.split(key)
    x_noise = jax.random.normal(x_key, image.shape, image.dtype)
    v_noise = jax.random.normal(v_key, image.shape, image.dtype)
    return noised(direction, factor, image, x_noise, v_noise)


def noised(direction, factor, image, x_noise, v_noise) -> tuple[jax.Array, jax.Array]:
    """(x, v) = a image + L (x_noise, v_noise); a (..., 2) and L (..., 2, 2) broadcast against the image."""
    x = direction[..., 0] * image + factor[..., 0, 0] * x_noise
    return x, direction[..., 1] * image + factor[..., 1, 0] * x_noise + factor[..., 1, 1] * v_noise


def to_device(table: np.ndarray) -> jax.Array:
    """A finished float64 table in the working precision.

    Raises:
      ValueError: if that cannot hold it.
    """
    dtype = jnp.result_type(float)
    with np.errstate(over="ignore"):
        rounded = np.asarray(table, np.float64).astype(dtype)
    if not np.isfinite(rounded).all():
        raise ValueError(f"the diffusion's tables exceed {dtype.name} at these times: change t_end or its constants")
    return jnp.asarray(rounded)


def draw_noise(state: State) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(next chain key, noise for x, noise for v); each key is used once."""
    chain_key, x_key, v_key = jax.random.split(state.key, 3)
    shape, dtype = state.x.shape, state.x.dtype
    return chain_key, jax.random.normal(x_key, shape, dtype), jax.random.normal(v_key, shape, dtype)


def cholesky(covariance: np.ndarray) -> np.ndarray:
    """Lower factor of 2x2 covariances that may be singular, shape (..., 2, 2)."""
    xx, xv, vv = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    factor = np.zeros(covariance.shape)
    factor[..., 0, 0] = np.sqrt(np.maximum(xx, 0))
    factor[..., 1, 0] = np.divide(xv, factor[..., 0, 0], out=np.zeros(xv.shape), where=xx > 0)
    factor[..., 1, 1] = np.sqrt(np.maximum(vv - factor[..., 1, 0] ** 2, 0))
    return factor
