"""Manifold constrained gradient."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import draw, norm_guided, residual, schedule, start
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State, UnsuitableError


def mcg(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int = 1000,
    step_size: float = 1.0,
) -> Loop:  # fmt: skip
    """A gradient step of the residual's norm, then a projection onto the measurement diffused to the step's end.

        x' = DDPM(x_t, x_0hat) - step_size grad_x |y - H(x_0hat)|
        x_s = x' + H^+ (y_s - H x'),  y_s = sqrt(kept_s) y + sqrt(1 - kept_s) H z,  z ~ N(0, I)

    The measurement counts as free of noise. For an operator whose pseudo-inverse is not known, and
    for nonlinear ones, the adjoint of its derivative at x' stands in its place, as in the comparisons
    of the DPS paper; then the projection is a step towards the measurement and no more.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H. noise_std: not used.
      image_shape: (H, W, C). num_steps: in [2, 1000]. step_size: > 0.

    References: Chung, Sim, Ryu, Ye (2022), arXiv:2206.00941, equations 9 and 10.
    """
    table = schedule(num_steps)
    measurement = operator.restrict(measurement)
    project = projection(operator, image_shape)

    def step(state: State, index):
        now = table.at(index)
        key, z = draw(state)
        noise_key, key = jax.random.split(key)
        x, predicted = norm_guided(denoise, measurement, operator, state.x, z, now, step_size)
        e = operator(jax.random.normal(noise_key, x.shape, x.dtype))
        x = project(x, jnp.sqrt(now.before) * measurement + jnp.sqrt(1 - now.before) * e)
        return state._replace(x=x, key=key), residual(measurement, predicted)

    return Loop(start, step)


def projection(operator: Operator, image_shape: tuple[int, ...]):
    """(x, y) -> the image nearest x with H x = y, or `mcg`'s stand-in for it."""
    try:
        form = singular_form(operator, tuple(image_shape))
    except UnsuitableError:

        def towards(x, y):
            predicted, back = jax.vjp(operator, x)
            return x + back(y - predicted)[0]

        return towards

    return lambda x, y: x + form.backward(form.pseudo_inverse(y - operator(x)))
