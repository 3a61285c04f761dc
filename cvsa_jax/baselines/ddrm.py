"""Denoising diffusion restoration models."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import draw, residual, schedule
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def ddrm(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    eta: float = 0.85, eta_b: float = 1.0,
) -> Loop:  # fmt: skip
    """Each coefficient z of V' x is drawn from x_0hat's, from y's, or from both, by its singular value s.

    At noise level n' < n, with z' = z/s' its measured value and e ~ N(0, 1):

        s = 0:             z_0hat + sqrt(1 - eta^2) n' (z - z_0hat)/n + eta n' e
        n' < noise_std/s:  z_0hat + sqrt(1 - eta^2) n' (z' - z_0hat)/(noise_std/s) + eta n' e
        else:              (1 - eta_b) z_0hat + eta_b z' + sqrt(n'^2 - eta_b^2 noise_std^2/s^2) e

    The chain runs on x_0 + n e, not scaled; the state is x. One evaluation a step, no pullback.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: with a `singular_form`.
      noise_std: > 0. image_shape: (H, W, C). num_steps: in [2, 1000].

    Raises:
      UnsuitableError: if the operator's singular values are not known.

    References: Kawar et al. (2022), arXiv:2201.11793, equations 7 and 8.
    """
    form = singular_form(operator, tuple(image_shape))
    table = schedule(num_steps)
    after = jnp.append(table.noise[1:], 0.0)
    s, measured = form.singular_values, form.pseudo_inverse(measurement)
    seen = s > 0
    level = noise_std / jnp.where(seen, s, 1.0)  # of the noise on the coefficient

    def init(key, image_shape):
        noise_key, chain_key = jax.random.split(key)
        top = table.noise[0]
        spread = jnp.where(seen, jnp.sqrt(jnp.maximum(top**2 - level**2, 0.0)), top)
        z = form.forward(jax.random.normal(noise_key, image_shape))
        return State(form.backward(measured + spread * z), None, chain_key)

    def step(state: State, index):
        noise, then = table.noise[index], after[index]
        estimate = denoise(state.x, noise)
        key, noise_image = draw(state)
        e = form.forward(noise_image)
        guess, z = form.forward(estimate), form.forward(state.x)
        kept = jnp.sqrt(1 - eta**2) * then
        unseen = guess + kept * (z - guess) / noise + eta * then * e
        vague = guess + kept * (measured - guess) / level + eta * then * e
        clear = (1 - eta_b) * guess + eta_b * measured
        clear += jnp.sqrt(jnp.maximum(then**2 - eta_b**2 * level**2, 0.0)) * e
        new = jnp.where(seen, jnp.where(then < level, vague, clear), unseen)
        return state._replace(x=form.backward(new), key=key), residual(operator, measurement, operator(estimate))

    return Loop(init, step)
