"""Pseudo-inverse guided diffusion."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import denoised, draw, residual, schedule, start
from cvsa_jax.operators.algebra import linearised, solve_gram
from cvsa_jax.operators.base import Operator
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def pigdm(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    data_variance: float = 1.0,
) -> Loop:  # fmt: skip
    """x_s = DDIM(x_t, x_0hat) + sqrt(kept_s kept_t) r^2 J' H' (r^2 H H' + noise_std^2 I)^-1 (y - H x_0hat).

    J = d x_0hat / d x_t, r^2 = noise^2 v / (noise^2 + v) with v = data_variance; DDIM with
    full noise, eta = 1. The guide moves x_0hat, so that it enters x_s with the factor sqrt(kept_s), as in the
    published code; without it the chain of photographs diverges at high noise.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: linear H (else its derivative).
      noise_std: > 0. image_shape: (H, W, C). num_steps: in [2, 1000].
      data_variance: of x_0 per pixel; the paper's is 1.

    References: Song, Vahdat, Mardani, Kautz (2023), Pseudoinverse-guided diffusion models for
    inverse problems, ICLR, algorithm 1.
    """
    table = schedule(num_steps)
    measurement = operator.restrict(measurement)

    def step(state: State, index):
        now = table.at(index)
        kept, before, noise = now
        estimate, pullback = jax.vjp(lambda x: denoised(denoise, x, now), state.x)
        predicted, forward, backward = linearised(operator, estimate)
        variance = noise**2 * data_variance / (noise**2 + data_variance)
        w = solve_gram(
            operator, forward, backward, measurement - predicted, noise_std**2, variance
        )  # fmt: skip
        guide = variance * pullback(backward(w))[0]
        key, z = draw(state)
        error = (state.x - jnp.sqrt(kept) * estimate) / jnp.sqrt(1 - kept)
        fresh = jnp.sqrt((1 - before) / (1 - kept) * (1 - kept / before))
        old = jnp.sqrt(jnp.maximum(1 - before - fresh**2, 0.0))
        x = jnp.sqrt(before) * estimate + old * error + fresh * z + jnp.sqrt(before * kept) * guide
        return state._replace(x=x, key=key), residual(operator, measurement, predicted)

    return Loop(start, step)
