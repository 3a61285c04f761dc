"""Denoising diffusion models for plug-and-play restoration (DiffPIR)."""

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.baselines.base import TRAINING_STEPS, denoised, draw, residual, schedule, start
from cvsa_jax.operators.algebra import linearised, solve_gram
from cvsa_jax.operators.base import Operator
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def diffpir(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    trust: float = 0.75, zeta: float = 1.0,
) -> Loop:  # fmt: skip
    """The denoised image is moved to the measurement by a proximal step, and noised anew.

        x_0 = argmin_x |y - H x|^2 / (2 noise_std^2) + trust |x - x_0hat|^2 / (2 noise^2)
        e = (x_t - sqrt(kept_t) x_0) / sqrt(1 - kept_t)
        x_s = sqrt(kept_s) x_0 + sqrt(1 - kept_s) (sqrt(1 - zeta) e + sqrt(zeta) z)

    A nonlinear H is linearised at x_0hat. One evaluation a step, no pullback of the network. The times are
    those of `quadratic_times`.

    Args:
      denoise: any Gaussian denoiser. measurement: y. operator: H. noise_std: > 0.
      image_shape: (H, W, C). num_steps: in [2, 1000]. trust: a quarter of the paper's lambda, whose noise_std is
        that of images in [0, 1]. zeta: of the paper, in [0, 1]; 1 draws all noise afresh.

    References: Zhu et al. (2023), arXiv:2305.08995, algorithm 1; the grid is that of the published code.
    """
    table = schedule(num_steps, quadratic_times)
    measurement = operator.restrict(measurement)

    def step(state: State, index):
        now = table.at(index)
        kept, before, noise = now
        estimate = denoised(denoise, state.x, now)
        predicted, forward, backward = linearised(operator, estimate)
        variance = noise**2 / trust
        w = solve_gram(operator, forward, backward, measurement - predicted, noise_std**2, variance)
        near = estimate + variance * backward(w)
        key, z = draw(state)
        error = (state.x - jnp.sqrt(kept) * near) / jnp.sqrt(1 - kept)
        x = jnp.sqrt(before) * near + jnp.sqrt(1 - before) * (jnp.sqrt(1 - zeta) * error + jnp.sqrt(zeta) * z)
        return state._replace(x=x, key=key), residual(operator, measurement, predicted)

    return Loop(start, step)


def quadratic_times(num_steps: int) -> np.ndarray:
    """t_i = 999 - floor(1000 sqrt(i / (num_steps - 1))), at least 0: dense where little noise is left.

    At many steps some stand twice; such a step only renews the noise.
    """
    passed = np.floor(TRAINING_STEPS * np.sqrt(np.arange(num_steps) / (num_steps - 1))).astype(int)
    return np.maximum(TRAINING_STEPS - 1 - passed, 0)
