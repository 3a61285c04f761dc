"""Denoising diffusion restoration models."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import draw, schedule
from cvsa_jax.samplers.base import Sampler
from cvsa_jax.types import Denoiser, Info, Operator, State


def ddrm(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, num_steps: int = 20,
    eta: float = 0.85, eta_b: float = 1.0,
) -> Sampler:  # fmt: skip
    """Each coefficient z of V' x is drawn from x_0hat's, from y's, or from both, by its singular value s.

    At noise level n' < n, with z' = z/s' its measured value and e ~ N(0, 1):

        s = 0:             z_0hat + sqrt(1 - eta^2) n' (z - z_0hat)/n + eta n' e
        n' < noise_std/s:  z_0hat + sqrt(1 - eta^2) n' (z' - z_0hat)/(noise_std/s) + eta n' e
        else:              (1 - eta_b) z_0hat + eta_b z' + sqrt(n'^2 - eta_b^2 noise_std^2/s^2) e

    The chain runs on x_0 + n e, not scaled; the state is x. One evaluation a step, no pullback.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: with `spectral_form`.
      noise_std: > 0. num_steps: in [2, 1000].

    Raises:
      ValueError: if the operator has no spectral form.

    References: Kawar et al. (2022), arXiv:2201.11793, equations 7 and 8.
    """
    if not hasattr(operator, "spectral_form"):
        raise ValueError("ddrm needs an operator with a spectral form")
    table = schedule(num_steps)
    after = jnp.append(table.noise[1:], 0.0)

    def spectral(image_shape):
        form = operator.spectral_form(image_shape)
        s = form.singular_values
        seen = s > 1e-6 * jnp.max(s)
        level = jnp.where(seen, noise_std / jnp.where(seen, s, 1.0), jnp.inf)  # of the noise on the coefficient
        return form, seen, level, form.pseudo_inverse(measurement)

    def init(key, image_shape):
        form, seen, level, measured = spectral(image_shape)
        noise_key, chain_key = jax.random.split(key)
        top = table.noise[0]
        spread = jnp.where(seen, jnp.sqrt(jnp.maximum(top**2 - level**2, 0.0)), top)
        z = jax.random.normal(noise_key, measured.shape)
        return State(form.backward(measured + spread * z), None, chain_key)

    def step(state: State, index):
        form, seen, level, measured = spectral(state.x.shape)
        noise, then = table.noise[index], after[index]
        estimate = denoise(state.x, noise)
        key, noise_image = draw(state)
        e = form.forward(noise_image)
        guess, z = form.forward(estimate), form.forward(state.x)
        kept = jnp.sqrt(1 - eta**2) * then
        level = jnp.where(seen, level, 1.0)
        unseen = guess + kept * (z - guess) / noise + eta * then * e
        vague = guess + kept * (measured - guess) / level + eta * then * e
        clear = (1 - eta_b) * guess + eta_b * measured
        clear += jnp.sqrt(jnp.maximum(then**2 - eta_b**2 * level**2, 0.0)) * e
        new = jnp.where(seen, jnp.where(then < level, vague, clear), unseen)
        r = measurement - operator(estimate)
        return state._replace(x=form.backward(new), key=key), Info(jnp.sqrt(jnp.mean(r**2)))

    return Sampler(init, step, table.noise)
