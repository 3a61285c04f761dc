"""Manifold constrained gradient."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import draw, norm_guided, residual, schedule, start
from cvsa_jax.operators.algebra import linearised
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.dense import Matrix
from cvsa_jax.operators.identity import Identity
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.registry import parts
from cvsa_jax.operators.separable import Separable
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.operators.tones import Clip
from cvsa_jax.operators.view import View
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State, UnsuitableError

# Each of them, and so each chain of them, is an average with positive weights (bicubic ones nearly), or flat. A camera
# that saturates is not one: where its derivative is small, the division makes steps that diverge.
AVERAGES = (Identity, Mask, Convolution, Separable, Clip)


def mcg(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    step_size: float = 1.0,
) -> Loop:  # fmt: skip
    """A gradient step of the residual's norm, then a projection onto the measurement diffused to the step's end.

        x' = DDPM(x_t, x_0hat) - step_size grad_x |y - H(x_0hat)|
        x_s = x' + P (y_s - H x'),  y_s = sqrt(kept_s) y + sqrt(1 - kept_s) H z,  z ~ N(0, I)

    P is H^+ of masks and reductions, where it does not lift the noise. Of a blur it would, and P is H' divided by
    the image H' H 1, pixel by pixel, which is a step towards the measurement and no more. Of a nonlinear H the
    derivative at x' stands for it; of others than AVERAGES, whose H' H 1 may be small, P is the adjoint itself.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H. noise_std: not used.
      image_shape: (H, W, C). num_steps: in [2, 1000]. step_size: > 0.

    References: Chung, Sim, Ryu, Ye (2022), arXiv:2206.00941, equations 9 and 10; for a blur as for their tomography,
    and as the published code of DPS compares it.
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
        return state._replace(x=x, key=key), residual(operator, measurement, predicted)

    return Loop(start, step)


def projection(operator: Operator, image_shape: tuple[int, ...]):
    """(x, y) -> x + P (y - H x), the P of `mcg`: for masks and reductions the image nearest x with H x = y."""
    inner = operator.operator if isinstance(operator, View) else operator
    reduces = isinstance(inner, Separable) and inner.rows.shape[0] < inner.rows.shape[1]
    if reduces or isinstance(inner, Identity | Mask | Matrix):
        try:
            form = singular_form(operator, tuple(image_shape))
            return lambda x, y: x + form.backward(form.pseudo_inverse(y - operator(x)))
        except UnsuitableError:  # a grey measurement of a colour image
            pass
    averages = all(isinstance(part, AVERAGES) for part in parts(inner))

    def towards(x, y):
        predicted, forward, back = linearised(operator, x)
        move = back(jax.tree.map(jnp.subtract, y, predicted))
        if averages:
            weight = back(forward(jnp.ones_like(x)))
            seen = weight > 1e-6 * weight.max()
            move = jnp.where(seen, move / jnp.where(seen, weight, 1.0), 0.0)
        return x + move

    return towards
