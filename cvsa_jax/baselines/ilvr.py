"""Iterative latent variable refinement."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import ddpm, denoised, draw, residual, schedule, start
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.separable import bicubic_downsample
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.operators.view import View
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State, UnsuitableError


def ilvr(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int = 100,
    factor: int = 4,
) -> Loop:  # fmt: skip
    """x_s = x' + D^+ (D q(r) - D x'): the low frequencies of a draw are those of the reference r, diffused alike.

    x' = DDPM(x_t, x_0hat), q(r) = sqrt(kept_s) r + sqrt(1 - kept_s) z, D bicubic reduction. The
    reference is the measurement as a picture; where that is smaller than the image, D is the
    reduction to its size, so that D r is the measurement itself. Neither H nor its noise is used: a
    blurred or masked picture stands for the image, as in the paper's comparison.

    Deviation: D^+ for the original's bicubic enlargement, with which D x_s would not be D q(r).

    Args:
      denoise: any Gaussian denoiser. measurement: y, a picture. operator: H. noise_std: not used.
      image_shape: (H, W, C). num_steps: in [2, 1000]. factor: of D, for measurements of the image's size.

    Raises:
      UnsuitableError: if the measurement is no picture of the image.

    References: Choi et al. (2021), arXiv:2108.02938, algorithm 1.
    """
    table = schedule(num_steps)
    lower, target = _reduction(operator, measurement, image_shape, factor)
    form = singular_form(lower, tuple(image_shape))

    def step(state: State, index):
        now = table.at(index)
        estimate = denoised(denoise, state.x, now)
        key, z = draw(state)
        noise_key, key = jax.random.split(key)
        x = ddpm(state.x, estimate, z, now)
        e = lower(jax.random.normal(noise_key, x.shape, x.dtype))
        low = jnp.sqrt(now.before) * target + jnp.sqrt(1 - now.before) * e
        x = x + form.backward(form.pseudo_inverse(low - lower(x)))
        return state._replace(x=x, key=key), residual(measurement, operator(estimate))

    return Loop(start, step)


def _reduction(operator, measurement, image_shape, factor):
    """(D, D r) for the reference that a measurement is."""
    height, width = (operator.height, operator.width) if isinstance(operator, View) else image_shape[:2]
    averaged = operator.averaged if isinstance(operator, View) else 1
    if measurement.ndim != 3:
        raise UnsuitableError("it takes the measurement for a picture, and this is none")
    ratio = round(height / measurement.shape[0])
    if measurement.shape[:2] != tuple(-(-n // max(ratio, 1)) for n in (height, width)):
        raise UnsuitableError("it takes the measurement for a picture, and this is none")
    lower = bicubic_downsample(height, width, ratio if ratio > 1 else factor)
    return View(lower, height, width, averaged), measurement if ratio > 1 else lower(measurement)
