"""Decoupled annealing posterior sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.baselines.base import draw, residual
from cvsa_jax.operators.base import Operator
from cvsa_jax.samplers.base import Loop, to_device
from cvsa_jax.types import Denoiser, State

NOISE_MAX, NOISE_MIN, FLOW_MIN, RHO = 100.0, 0.1, 0.01, 7.0


def daps(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    ode_steps: int = 1, langevin_steps: int = 100, step_size: float = 1e-4, decay: float = 0.01, tau: float = 0.01,
) -> Loop:  # fmt: skip
    """At each noise level: an image by the flow, Langevin steps of the posterior round it, noised to the next level.

        x_0hat = the probability flow from (x, r) to noise .01: ode_steps Euler steps of dx = (x - denoise(x, r))/r dr
        x_0 <- x_0 + h ((x_0hat - x_0)/r^2 + 2 H'(y - H(x_0))/tau^2) + sqrt(2 h) e,  langevin_steps times from x_0hat
        x = x_0 + next r z

    The N = num_steps / ode_steps levels are r_i = (100^(1/7) + (i/N) (.1^(1/7) - 100^(1/7)))^7, and 0 after the
    last. The flow's grid is of the same form from r_i to .01, both ends among its points. At level i the length is
    h = step_size (1 - (1 - decay) i/(N + 1)). noise_std is not used: tau stands for it, with the published code's
    2 for the gradient of |y - H(x_0)|^2.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H, any differentiable function.
      noise_std: of y. image_shape: (H, W, C). num_steps: network evaluations, noise levels times ode_steps.
      langevin_steps: at each level, without the network. step_size: > 0, at most tau^2 over the largest
        squared singular value of H. decay: in (0, 1]. tau: > 0, the noise that the measurement is taken to have.

    Raises:
      ValueError: if num_steps is no multiple of ode_steps.

    References: Zhang et al. (2024), arXiv:2407.01521, algorithm 1; the levels and lengths are those of the
    published code.
    """
    if num_steps < ode_steps or num_steps % ode_steps:
        raise ValueError(f"num_steps of daps must be a multiple of {ode_steps}, got {num_steps}")
    measurement = operator.restrict(measurement)
    count = num_steps // ode_steps
    levels = between(NOISE_MAX, NOISE_MIN, count)[:-1]
    table, after = to_device(levels), to_device(np.append(levels[1:], 0.0))
    lengths = to_device(step_size * (1 - (1 - decay) * np.arange(count) / (count + 1)))
    grids = to_device(np.stack([between(level, FLOW_MIN, ode_steps) for level in levels]))

    def flow(x, grid):
        for i in range(ode_steps):
            x = x + (grid[i + 1] - grid[i]) * (x - denoise(x, grid[i])) / grid[i]
        return x

    def langevin(x_hat, noise, h, key):
        def one(i, x):
            predicted, back = jax.vjp(operator, x)
            drift = (x_hat - x) / noise**2 + 2 * back(measurement - predicted)[0] / tau**2
            e = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
            return x + h * drift + jnp.sqrt(2 * h) * e

        return jax.lax.fori_loop(0, langevin_steps, one, x_hat)

    def init(key, image_shape):
        noise_key, chain_key = jax.random.split(key)
        return State(NOISE_MAX * jax.random.normal(noise_key, image_shape), None, chain_key)

    def level(state: State, number):
        key, z = draw(state)
        langevin_key, key = jax.random.split(key)
        x = langevin(flow(state.x, grids[number]), table[number], lengths[number], langevin_key)
        return state._replace(x=x + after[number] * z, key=key), residual(operator, measurement, operator(x))

    def step(state: State, index):
        """A level's work is done at its last evaluation, so that num_steps counts evaluations."""
        shapes = jax.eval_shape(level, state, index)
        idle = lambda s: (s, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes[1]))  # noqa: E731
        last = index % ode_steps == ode_steps - 1
        return jax.lax.cond(last, lambda s: level(s, index // ode_steps), idle, state)

    return Loop(init, step)


def between(high: float, low: float, count: int) -> np.ndarray:
    """count + 1 noise levels from high to low, even in the RHO-th root."""
    ends = np.array([high, low]) ** (1 / RHO)
    return np.linspace(ends[0], ends[1], count + 1) ** RHO
