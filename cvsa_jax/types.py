"""Shared types, and the one table from the paper's symbols to the names in this code.

| paper            | here                                   | meaning                              |
|------------------|----------------------------------------|--------------------------------------|
| x, v             | `State.x`, `State.v`                   | position (the image) and velocity    |
| k, v'            | `State.k`, `State.kernel_v`            | the kernel's chain, blind tasks      |
| y, H, n, sigma   | `measurement`, `operator`, `noise_std` | y = H(x) + n, n ~ N(0, sigma^2 I)    |
| M, Gamma         | `CLD.mass`, `CLD.friction`             | mass, friction                       |
| beta, gamma      | `CLD.beta`, `CLD.gamma`                | rate, scale of the initial velocity  |
| D_t, Sigma_t     | `CLD.transition`, `CLD.covariance`     | p(u_t given u_0) = N(D_t u_0, S_t)   |
| d_t              | `CLD.data_coefficient`                 | the data's weight in the score       |
| x_0 hat          | `Prior.posterior_mean`                 | E[x_0 given u_t]                     |
| S_theta          | `Prior.velocity_score`                 | the gradient of log p(u_t) in v      |
| T, dt            | `num_steps`, `time_grid`               | reverse steps and their times        |

Images are float32 in [-1, 1], shape (H, W, C); `jax.vmap` makes batches of them.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
from jax.tree_util import Partial


class State(NamedTuple):
    """The reverse process at one time. k and kernel_v are None unless the task is blind.

    v: None of a chain without a velocity.
    dual: the last solution of the guidance's inner system, from which the next one starts.
    last_mean: E[x_0 | u_t, y] one step back, for samplers of second order.
    log_weights: of the particles, for a sampler of many.
    """

    x: jax.Array
    v: jax.Array | None
    key: jax.Array
    k: jax.Array | None = None
    kernel_v: jax.Array | None = None
    dual: jax.Array | None = None
    last_mean: jax.Array | None = None
    log_weights: jax.Array | None = None


class Info(NamedTuple):
    """What one step reports; stacked over steps it is the trace.

    residual: root mean square of y - H(x_0 hat) (of `expected`, where H has it), in the measurement's units.
    effective_size: of `particles`, 1 / sum of squared weights; else None.
    """

    residual: jax.Array
    effective_size: jax.Array | None = None


class Estimate(NamedTuple):
    """What guidance knows at one u_t.

    mean: E[x_0 | u_t, y]. correction: mean - E[x_0 | u_t]. log_fit: log p(y | u_t), up to
    a number that all u_t of one time share. dual: see `State`.
    """

    mean: jax.Array
    info: Info
    correction: jax.Array | None = None
    log_fit: jax.Array | None = None
    dual: jax.Array | None = None


class InputError(ValueError):
    """A problem with what the user gave; its message is one line meant for them."""


class Stopped(BaseException):
    """A job that was asked to end did so at a good place; the message says what is left of it."""


class UnsuitableError(ValueError):
    """A method that cannot do a task; the message says why."""


class Denoiser(Protocol):
    """E[x_0 | x_0 + sigma e = x] for one image x of shape (H, W, C) and a scalar sigma."""

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array: ...


ConditionalMean = Callable[..., Estimate]
"""(x, v, step index, dual) -> Estimate: what a sampler needs to know."""


def as_partial(function: Callable) -> Partial:
    """A callable as a pytree: arrays inside a callable pytree stay leaves."""
    if isinstance(function, Partial):
        return function
    if jax.tree_util.all_leaves([function]):
        return Partial(function)
    return Partial(_call, function)


def _call(function, *args):
    return function(*args)
