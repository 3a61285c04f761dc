"""Iterative latent variable refinement."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import ddpm, denoised, draw, residual, schedule, start
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.registry import parts
from cvsa_jax.operators.separable import bicubic_downsample
from cvsa_jax.operators.view import View
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State, UnsuitableError


def ilvr(
    denoise: Denoiser, measurement: jax.Array, operator: Operator, noise_std, image_shape, num_steps: int,
    factor: int = 2,
) -> Loop:  # fmt: skip
    """x_s = x' + U (D q(r) - D x'): the low frequencies of a draw are those of the reference r, diffused alike.

    x' = DDPM(x_t, x_0hat), q(r) = sqrt(kept_s) r + sqrt(1 - kept_s) z, D bicubic reduction and U bicubic
    enlargement. The reference is the measurement as a picture; where that is smaller than the image, D is the
    reduction to its size, so that D r is the measurement itself. Neither H nor its noise is used: a blurred
    picture stands for the image. A picture with holes cannot, and is refused.

    Args:
      denoise: any Gaussian denoiser. measurement: y, a picture. operator: H. noise_std: not used.
      image_shape: (H, W, C). num_steps: in [2, 1000]. factor: of D, for measurements of the image's size.

    Raises:
      UnsuitableError: if the measurement is no picture of the image, or one with holes.

    References: Choi et al. (2021), arXiv:2108.02938, algorithm 1.
    """
    table = schedule(num_steps)
    lower, target, factor = _reduction(operator, measurement, image_shape, factor)

    def step(state: State, index):
        now = table.at(index)
        estimate = denoised(denoise, state.x, now)
        key, z = draw(state)
        noise_key, key = jax.random.split(key)
        x = ddpm(state.x, estimate, z, now)
        e = lower(jax.random.normal(noise_key, x.shape, x.dtype))
        low = jnp.sqrt(now.before) * target + jnp.sqrt(1 - now.before) * e
        x = x + _enlarged(low - lower(x), factor, lower.height, lower.width, x.shape)
        return state._replace(x=x, key=key), residual(operator, measurement, operator(estimate))

    return Loop(start, step)


def _enlarged(low, factor: int, height: int, width: int, image_shape):
    """Bicubic, cut to the part of the canvas that is seen; nothing beyond it, and a grey one in every channel."""
    whole = jax.image.resize(low, (low.shape[0] * factor, low.shape[1] * factor, low.shape[2]), "cubic")
    part = jnp.broadcast_to(whole[:height, :width], (height, width, image_shape[-1]))
    return jnp.zeros(image_shape, low.dtype).at[:height, :width].set(part)


def _reduction(operator, measurement, image_shape, factor) -> tuple[View, jax.Array, int]:
    """(D, D r, its factor) for the reference r that a measurement is."""
    seen = isinstance(operator, View)
    inner = operator.operator if seen else operator
    height, width = (operator.height, operator.width) if seen else image_shape[:2]
    averaged = operator.averaged if seen else 1
    if measurement.ndim != 3:
        raise UnsuitableError("it takes the measurement for a picture, and this is none")
    if any(isinstance(part, Mask) for part in parts(inner)):
        raise UnsuitableError("it takes the measurement for the picture itself, and this one has holes")
    ratio = round(height / measurement.shape[0])
    if measurement.shape[:2] != tuple(-(-n // max(ratio, 1)) for n in (height, width)):
        raise UnsuitableError("it takes the measurement for a picture, and this is none")
    own = ratio if ratio > 1 else factor
    lower = bicubic_downsample(height, width, own)
    return View(lower, height, width, averaged), measurement if ratio > 1 else lower(measurement), own
