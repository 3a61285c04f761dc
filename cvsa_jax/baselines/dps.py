"""Diffusion posterior sampling."""

import jax

from cvsa_jax.baselines.base import draw, norm_guided, residual, schedule, start
from cvsa_jax.operators.base import Operator
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def dps(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    step_size: float = 1.0,
) -> Loop:  # fmt: skip
    """x_s = DDPM(x_t, x_0hat) - step_size grad_x |y - H(x_0hat)|, the norm of one image alone.

    DDPM draws from q(x_s | x_t, x_0hat), x_0hat = denoise(x_t / sqrt(kept), noise). noise_std
    is not used.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H, any differentiable function.
      noise_std: of y. image_shape: (H, W, C). num_steps: in [2, 1000]. step_size: > 0; the paper
        has .3 to 1 by task.

    References: Chung et al. (2022), arXiv:2209.14687, algorithm 1.
    """
    table = schedule(num_steps)
    measurement = operator.restrict(measurement)

    def step(state: State, index):
        now = table.at(index)
        key, z = draw(state)
        x, predicted = norm_guided(denoise, measurement, operator, state.x, z, now, step_size)
        return state._replace(x=x, key=key), residual(operator, measurement, predicted)

    return Loop(start, step)
