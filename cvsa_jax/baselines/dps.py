"""Diffusion posterior sampling."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import draw, schedule, start
from cvsa_jax.operators.base import restrict
from cvsa_jax.samplers.base import Sampler
from cvsa_jax.types import Denoiser, Info, Operator, State


def dps(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, num_steps: int = 1000,
    step_size: float = 1.0,
) -> Sampler:  # fmt: skip
    """x_s = DDPM(x_t, x_0hat) - step_size grad_x |y - H(x_0hat)|, the norm of one image alone.

    DDPM draws from q(x_s | x_t, x_0hat), x_0hat = denoise(x_t / sqrt(kept), noise). noise_std
    is not used.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H, any differentiable function.
      noise_std: of y. num_steps: in [2, 1000]. step_size: > 0; the paper has .3 to 1 by task.

    References: Chung et al. (2022), arXiv:2209.14687, algorithm 1.
    """
    table = schedule(num_steps)
    measurement = restrict(operator, measurement)

    def step(state: State, index):
        kept, before, noise = (a[index] for a in table)
        estimate, pullback = jax.vjp(lambda x: denoise(x / jnp.sqrt(kept), noise), state.x)
        predicted, back = jax.vjp(operator, estimate)
        r = measurement - predicted
        size = jnp.sqrt(jnp.vdot(r, r))
        gradient = -pullback(back(r / jnp.maximum(size, jnp.finfo(r.dtype).tiny))[0])[0]
        key, z = draw(state)
        ratio = kept / before
        x = jnp.sqrt(before) * (1 - ratio) / (1 - kept) * estimate
        x += jnp.sqrt(ratio) * (1 - before) / (1 - kept) * state.x
        x += jnp.sqrt((1 - before) / (1 - kept) * (1 - ratio)) * z
        return state._replace(x=x - step_size * gradient, key=key), Info(jnp.sqrt(jnp.mean(r**2)))

    return Sampler(start, step, table.noise)
