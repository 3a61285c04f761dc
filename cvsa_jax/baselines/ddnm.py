"""Denoising diffusion null-space model for noisy measurements (DDNM+)."""

import jax.numpy as jnp

from cvsa_jax.baselines.base import ancestor, denoised, draw, residual, schedule, start
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def ddnm(
    denoise: Denoiser, measurement, operator: Operator, noise_std, image_shape, num_steps: int = 100, repeats: int = 4
) -> Loop:
    """What H sees of x_0hat is replaced by the measurement, as far as its noise lets, and noised less for it.

    With q(x_s | x_t, x_0) = N(a x_0 + b x_t, c^2 I), z = V' x, z' = diag(s)^+ U' y and n = noise_std/s:

        z_0 = z_0hat + w (z' - z_0hat),  w = min(1, c / (a n)),  0 where s is
        z_s = a z_0 + b z_t + sqrt(c^2 - a^2 w^2 n^2) e

    so that the noise of y and the noise added make up the step's own, c. Each level is done `repeats` times,
    its result noised back to the level between them, by the paper's time travel.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: with a `singular_form`.
      noise_std: >= 0. image_shape: (H, W, C). num_steps: network evaluations, of num_steps / repeats
        levels, in [2, 1000]. repeats: >= 1.

    Raises:
      UnsuitableError: if the operator's singular values are not known.

    References: Wang, Yu, Zhang (2022), arXiv:2212.00490, section 3.3 and appendix.
    """
    form = singular_form(operator, tuple(image_shape))
    table = schedule(-(-num_steps // repeats))
    s, measured = form.singular_values, form.pseudo_inverse(measurement)
    seen = s > 0
    level = noise_std / jnp.where(seen, s, 1.0)

    def step(state: State, index):
        now = table.at(index // repeats)
        a, b, c = ancestor(now)
        estimate = denoised(denoise, state.x, now)
        weight = jnp.where(seen, jnp.minimum(1.0, c / jnp.maximum(a * level, 1e-12)), 0.0)
        guess = form.forward(estimate)
        key, z = draw(state)
        fresh = jnp.sqrt(jnp.maximum(c**2 - jnp.where(seen, a * weight * level, 0.0) ** 2, 0.0))
        new = a * (guess + weight * (measured - guess)) + b * form.forward(state.x) + fresh * form.forward(z)
        x = form.backward(new)
        if repeats > 1:
            key, e = draw(state._replace(key=key))
            back = jnp.sqrt(now.kept / now.before)
            again = (index % repeats < repeats - 1) & (index < num_steps - 1)
            x = jnp.where(again, back * x + jnp.sqrt(1 - back**2) * e, x)
        return state._replace(x=x, key=key), residual(measurement, operator(estimate))

    return Loop(start, step)
