"""Denoising diffusion null-space model for noisy measurements (DDNM+)."""

import jax.numpy as jnp
import numpy as np

from cvsa_jax.baselines.base import TRAINING_STEPS, denoised, draw, residual, schedule, start
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def ddnm(
    denoise: Denoiser, measurement, operator: Operator, noise_std, image_shape, num_steps: int, repeats: int = 1,
    eta: float = 0.85,
) -> Loop:  # fmt: skip
    """What H sees of x_0hat is replaced by the measurement, as far as its noise lets, and noised less for it.

    With z = V' x, z' = diag(s)^+ U' y, n = noise_std/s, the step's end a = sqrt(kept_s), c = sqrt(1 - kept_s),
    eps = (x_t - sqrt(kept_t) x_0hat) / sqrt(1 - kept_t) and e ~ N(0, I):

        s = 0:     z_s = a z_0hat + c (sqrt(1 - eta^2) V' eps + eta e)
        c < a n:   z_s = a z_0hat + c (sqrt(1 - eta^2) (z' - z_0hat)/n + eta e)
        else:      z_s = a z' + sqrt(c^2 - a^2 n^2) e

    so that the noise of y is a part of the step's own. These are DDRM's steps with eta_b = 1, scaled by a. What
    differs is the grid, the start from N(0, I), and the paper's time travel: each level is done `repeats` times,
    its result noised back to the level between them.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: with a `singular_form`.
      noise_std: >= 0. image_shape: (H, W, C). num_steps: network evaluations, of num_steps / repeats
        levels, in [2, 1000]. repeats: >= 1. eta: in [0, 1].

    Raises:
      UnsuitableError: if the operator's singular values are not known.

    References: Wang, Yu, Zhang (2022), arXiv:2212.00490, algorithms 3 and 4; the steps and the grid are those of the
    published code for noisy measurements.

    Deviation: with repeats > 1 the published code goes back by noising x_0hat, which the measurement has not corrected;
    here the step's result z_s is noised.
    """
    form = singular_form(operator, tuple(image_shape))
    table = schedule(-(-num_steps // repeats), whole_times)
    s, measured = form.singular_values, form.pseudo_inverse(measurement)
    seen = s > 0
    level = noise_std / jnp.where(seen, s, 1.0)
    old = jnp.sqrt(1 - eta**2)

    def step(state: State, index):
        now = table.at(index // repeats)
        a, c = jnp.sqrt(now.before), jnp.sqrt(1 - now.before)
        estimate = denoised(denoise, state.x, now)
        error = form.forward((state.x - jnp.sqrt(now.kept) * estimate) / jnp.sqrt(1 - now.kept))
        guess = form.forward(estimate)
        key, noise = draw(state)
        e = form.forward(noise)
        # Where the noise is zero `clear` is taken, and the division below only must not fail.
        vague = (measured - guess) / jnp.where(level > 0, level, 1.0)
        clear = a * measured + jnp.sqrt(jnp.maximum(c**2 - (a * level) ** 2, 0.0)) * e
        drawn = a * guess + c * (old * jnp.where(seen, vague, error) + eta * e)
        x = form.backward(jnp.where(seen & (c >= a * level), clear, drawn))
        if repeats > 1:
            key, e = draw(state._replace(key=key))
            back = jnp.sqrt(now.kept / now.before)
            again = (index % repeats < repeats - 1) & (index < num_steps - 1)
            x = jnp.where(again, back * x + jnp.sqrt(1 - back**2) * e, x)
        return state._replace(x=x, key=key), residual(operator, measurement, operator(estimate))

    return Loop(start, step)


def whole_times(num_steps: int) -> np.ndarray:
    """t_i = floor((num_steps - 1 - i) 1000 / num_steps): 990, 980, ..., 0 of 100 steps."""
    return np.arange(num_steps)[::-1] * TRAINING_STEPS // num_steps
