"""Decoupled annealing posterior sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.baselines.base import draw, residual
from cvsa_jax.operators.base import Operator
from cvsa_jax.samplers.base import Loop, to_device
from cvsa_jax.types import Denoiser, State

NOISE_MAX, NOISE_MIN, RHO = 100.0, 0.1, 7.0


def daps(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int = 100,
    ode_steps: int = 2, langevin_steps: int = 100, step_size: float = 1e-4, decay: float = 0.01, tau: float = 0.01,
) -> Loop:  # fmt: skip
    """At each noise level: an image by the flow, Langevin steps of the posterior round it, noised to the next level.

        x_0hat = the probability flow from (x, noise) to noise 0, in ode_steps evaluations
        x_0 <- x_0 - h grad [|x_0 - x_0hat|^2 / (2 r^2) + |y - H(x_0)|^2 / (2 tau^2)] + sqrt(2 h) e,  r = noise
        x = x_0 + next noise z

    h falls evenly from step_size at the first level to decay step_size at the last. The constants are the
    published ones of linear tasks, whose tau is less than their noise of .05; noise_std is not used.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H, any differentiable function.
      noise_std: of y. image_shape: (H, W, C). num_steps: network evaluations; noise levels times ode_steps.
      langevin_steps: at each level, without the network. step_size: > 0, below 2 tau^2 over the largest
        squared singular value of H. decay: in (0, 1]. tau: > 0, the noise that the measurement is taken to have.

    Raises:
      ValueError: if num_steps is no multiple of ode_steps.

    References: Zhang et al. (2024), arXiv:2407.01521, algorithm 1.
    """
    if num_steps < ode_steps or num_steps % ode_steps:
        raise ValueError(f"num_steps of daps must be a multiple of {ode_steps}, got {num_steps}")
    measurement = operator.restrict(measurement)
    levels = _levels(num_steps // ode_steps)
    table, after = to_device(levels), to_device(np.append(levels[1:], 0.0))
    lengths = to_device(step_size * np.linspace(1.0, decay, len(levels)))
    # Each flow goes down to a hundredth of its level on a grid of the same form.
    fractions = to_device(_levels(ode_steps) / NOISE_MAX if ode_steps > 1 else np.ones(1))

    def flow(x, noise):
        steps = jnp.append(fractions * noise, 0.0)
        for i in range(ode_steps):
            now, then = steps[i], steps[i + 1]
            x = x + (then - now) * (x - denoise(x, now)) / now
        return x

    def langevin(x_hat, noise, h, key):
        def one(i, x):
            predicted, back = jax.vjp(operator, x)
            drift = (x_hat - x) / noise**2 + back(measurement - predicted)[0] / tau**2
            e = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
            return x + h * drift + jnp.sqrt(2 * h) * e

        return jax.lax.fori_loop(0, langevin_steps, one, x_hat)

    def init(key, image_shape):
        noise_key, chain_key = jax.random.split(key)
        return State(NOISE_MAX * jax.random.normal(noise_key, image_shape), None, chain_key)

    def level(state: State, number):
        key, z = draw(state)
        langevin_key, key = jax.random.split(key)
        x = langevin(flow(state.x, table[number]), table[number], lengths[number], langevin_key)
        return state._replace(x=x + after[number] * z, key=key), residual(measurement, operator(x))

    def step(state: State, index):
        """A level's work is done at its last evaluation, so that num_steps counts evaluations."""
        shapes = jax.eval_shape(level, state, index)
        idle = lambda s: (s, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes[1]))  # noqa: E731
        last = index % ode_steps == ode_steps - 1
        return jax.lax.cond(last, lambda s: level(s, index // ode_steps), idle, state)

    return Loop(init, step)


def _levels(count: int) -> np.ndarray:
    """`count` noise levels from NOISE_MAX to NOISE_MIN, even in the RHO-th root."""
    ends = np.array([NOISE_MAX, NOISE_MIN]) ** (1 / RHO)
    return np.linspace(ends[0], ends[1], count) ** RHO
