"""What the baselines share: the variance-preserving schedule of 1000 steps, respaced, and its moves."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.numerics import norm, ratio
from cvsa_jax.operators.algebra import root_mean_square
from cvsa_jax.operators.base import Operator
from cvsa_jax.samplers.base import to_device
from cvsa_jax.types import Denoiser, Info, State

TRAINING_STEPS = 1000


class Schedule(NamedTuple):
    """x_t = sqrt(kept_t) x_0 + sqrt(1 - kept_t) e at decreasing t; `before` is kept at the step's end.

    noise: sqrt((1 - kept)/kept), the level at which x_t / sqrt(kept) is denoised.
    """

    kept: jax.Array
    before: jax.Array
    noise: jax.Array

    def at(self, index: jax.Array) -> "Schedule":
        """The numbers of one step."""
        return Schedule(*(a[index] for a in self))


def even_times(num_steps: int) -> np.ndarray:
    """999, ..., 0, as evenly as whole numbers are."""
    return np.linspace(TRAINING_STEPS - 1, 0, num_steps).round().astype(int)


def schedule(num_steps: int, times: Callable[[int], np.ndarray] = even_times) -> Schedule:
    """The linear schedule (rates 1e-4 to .02 over 1000 steps) at num_steps of its steps, ending in kept = 1.

    Args:
      num_steps: in [2, 1000]. times: num_steps -> the steps, whole numbers of [0, 999] that do not increase.

    Raises:
      ValueError: if num_steps is not in [2, 1000].

    References: Ho, Jain, Abbeel (2020), arXiv:2006.11239, section 4.
    """
    if not 2 <= num_steps <= TRAINING_STEPS:
        raise ValueError(f"num_steps of a baseline must be in [2, {TRAINING_STEPS}], got {num_steps}")
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, TRAINING_STEPS))[times(num_steps)]
    return Schedule(*map(to_device, (kept, np.append(kept[1:], 1.0), ((1 - kept) / kept) ** 0.5)))


def start(key: jax.Array, image_shape: tuple[int, ...]) -> State:
    """x ~ N(0, I); these chains have no velocity."""
    noise_key, chain_key = jax.random.split(key)
    return State(jax.random.normal(noise_key, image_shape), None, chain_key)


def draw(state: State) -> tuple[jax.Array, jax.Array]:
    """(next chain key, noise of x's shape)."""
    chain_key, noise_key = jax.random.split(state.key)
    return chain_key, jax.random.normal(noise_key, state.x.shape, state.x.dtype)


def denoised(denoise: Denoiser, x: jax.Array, now: Schedule) -> jax.Array:
    """x_0hat = E[x_0 | x_t = x]."""
    return denoise(x / jnp.sqrt(now.kept), now.noise)


def ancestor(now: Schedule) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(a, b, s) of q(x_s | x_t, x_0) = N(a x_0 + b x_t, s^2 I), s the step's end."""
    ratio = now.kept / now.before
    a = jnp.sqrt(now.before) * (1 - ratio) / (1 - now.kept)
    b = jnp.sqrt(ratio) * (1 - now.before) / (1 - now.kept)
    return a, b, jnp.sqrt((1 - now.before) / (1 - now.kept) * (1 - ratio))


def ddpm(x: jax.Array, estimate: jax.Array, z: jax.Array, now: Schedule) -> jax.Array:
    """A draw of q(x_s | x_t, x_0hat), z ~ N(0, I)."""
    a, b, s = ancestor(now)
    return a * estimate + b * x + s * z


def norm_guided(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, x: jax.Array, z: jax.Array, now: Schedule, step_size
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """(DDPM(x_t, x_0hat) - step_size grad_x |y - H(x_0hat)|, H(x_0hat)), z the noise of the draw."""
    estimate, pullback = jax.vjp(lambda x: denoised(denoise, x, now), x)
    predicted, back = jax.vjp(operator, estimate)
    gradient = -pullback(back(unit(measurement - predicted))[0])[0]
    return ddpm(x, estimate, z, now) - step_size * gradient, predicted


def residual(operator: Operator, measurement: jax.Array, predicted: jax.Array | float) -> Info:
    """What a step reports."""
    return Info(root_mean_square(operator, measurement - predicted))


def unit(r: jax.Array) -> jax.Array:
    """r / |r|, the gradient of |r|; zero at zero."""
    return ratio(r, norm(r))
