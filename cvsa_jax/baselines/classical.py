"""A yardstick without a network: what each degradation is commonly undone with (scikit-image)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.chain import Chain
from cvsa_jax.operators.identity import Identity
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.phase import FourierMagnitude
from cvsa_jax.operators.separable import Separable, reduction_factor
from cvsa_jax.operators.tones import Clip, Quantised
from cvsa_jax.types import UnsuitableError

# Total variation's weight over the noise's deviation, that for JPEG, which is far above the noise's, and the
# Wiener filter's balance over the noise's variance: each the best of a few on the first shipped photographs.
TV_WEIGHT, JPEG_WEIGHT, BALANCE = 0.5, 0.075, 6.0
LEAST_BALANCE = 1e-14  # of measurements without noise: a frequency that the blur removes altogether is no 0/0


def restore_classically(operator: Operator, measurement: np.ndarray, noise_std: float, image_shape) -> np.ndarray:
    """An image (H, W, C) in [-1, 1] from y, in the operator's customary way.

    Noise and JPEG by total variation (Chambolle 2004), blur by the Wiener filter with a Laplacian as
    prior (Orieux et al. 2010), masks by dividing by their gain and biharmonic filling, reduction by bicubic
    enlargement and total variation, a clipped range by dividing by the gain, phases by Fienup's iteration.

    Args:
      operator: H. measurement: y. noise_std: >= 0. image_shape: (H, W, C).

    Raises:
      UnsuitableError: if there is none for the operator.
    """
    y = np.asarray(measurement, np.float64)
    return np.clip(_restore(operator, y, noise_std, tuple(image_shape)), -1, 1).astype(np.float32)


@functools.singledispatch
def _restore(operator, y, noise_std, image_shape) -> np.ndarray:
    raise UnsuitableError("no classical method is at hand for it")


def _total_variation(y, weight):
    from skimage.restoration import denoise_tv_chambolle

    if not weight:
        return y
    return denoise_tv_chambolle(y, weight, channel_axis=-1)


@_restore.register(Identity)
def _(operator: Identity, y, noise_std, image_shape):
    return _total_variation(y, TV_WEIGHT * noise_std)


@_restore.register(Quantised)
def _(operator: Quantised, y, noise_std, image_shape):
    return _total_variation(y, JPEG_WEIGHT)


@_restore.register(Clip)
def _(operator: Clip, y, noise_std, image_shape):
    return _total_variation(y, TV_WEIGHT * noise_std) / float(operator.gain)


@_restore.register(Mask)
def _(operator: Mask, y, noise_std, image_shape):
    from skimage.restoration import inpaint_biharmonic

    known, hole = np.asarray(operator.pixels(jnp.asarray(y))), np.asarray(operator.seen)[..., 0] == 0
    return inpaint_biharmonic(known, hole, channel_axis=-1)


def _wiener(y, kernel, noise_std):
    """The filter is circular, so the image is mirrored about its border first."""
    from skimage.restoration import wiener

    margins = [n // 2 for n in kernel.shape]
    padded = np.pad(y, [(m, m) for m in margins] + [(0, 0)], mode="reflect")
    # scikit-image's kernel correlates as ours does, its middle at the centre.
    balance = max(BALANCE * noise_std**2, LEAST_BALANCE)
    found: list[Any] = [wiener(c, kernel, balance, clip=False) for c in np.moveaxis(padded, -1, 0)]
    inside = tuple(slice(m, n - m) for m, n in zip(margins, padded.shape[:2], strict=True))
    return np.stack(found, -1)[inside]


@_restore.register(Convolution)
def _(operator: Convolution, y, noise_std, image_shape):
    return _wiener(y, np.asarray(operator.kernel, np.float64), noise_std)


@_restore.register(Separable)
def _(operator: Separable, y, noise_std, image_shape):
    kernel = operator.blur_kernel()
    if kernel is not None:
        return _wiener(y, kernel, noise_std)
    # A side that is no multiple of the factor is enlarged beyond the image, so that pixels stay in register.
    height, width, channels = image_shape
    large = [len(matrix) * reduction_factor(np.asarray(matrix)) for matrix in (operator.rows, operator.columns)]
    enlarged = np.asarray(jax.image.resize(y, (*large, channels), "cubic"))[:height, :width]
    return _total_variation(enlarged, TV_WEIGHT * noise_std)


@_restore.register(FourierMagnitude)
def _(operator: FourierMagnitude, y, noise_std, image_shape):
    return np.asarray(operator.first_guess(jnp.asarray(np.asarray(y, np.float32)), jax.random.key(0)))


@_restore.register(Chain)
def _(operator: Chain, y, noise_std, image_shape):
    between = jax.eval_shape(operator.first, jax.ShapeDtypeStruct(image_shape, np.float32)).shape
    return _restore(operator.first, _restore(operator.last, y, noise_std, between), noise_std, image_shape)
