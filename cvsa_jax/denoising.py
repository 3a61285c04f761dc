"""What guidance must know of a prior beside its denoiser: how far it errs at each noise, and in which frequencies."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.priors import Calibration, Prior, coefficients
from cvsa_jax.samplers.base import cholesky, noised, to_device
from cvsa_jax.spectral import estimate_spectrum

VALIDATION_NOISES = tuple(float(s) for s in np.geomspace(0.002, 200.0, 16))


def calibrate(
    prior: Prior, images: np.ndarray, *, key: jax.Array | None = None, noises: Sequence[float] | None = None,
    spectrum: bool = True, batch_size: int = 64,
) -> Prior:  # fmt: skip
    """The same prior with its calibration curve measured on images, and their power spectrum.

    A prior of your own denoiser has neither: guidance then takes its error for that of a white Gaussian of deviation
    1/2, which is far from photographs. The curve is `denoising_error`; the spectrum, `estimate_spectrum`, tells
    `spectral_covariance`, the presets' guidance, how that error is spread over the frequencies.

    Args:
      prior: any prior.
      images: (N, H, W, C) in [-1, 1], such as the prior is of and best not those that it was trained on. A hundred
        or two are enough; the cost is one evaluation of each image at each noise.
      key: PRNG key of the noise; None is a fixed one.
      noises: increasing noise levels of the curve, between which it is interpolated; None is `noises_of(prior)`.
      spectrum: whether the spectrum is measured too. Without it the prior keeps its own.
      batch_size: images that are denoised together.

    Returns: the prior; its fields `calibration` and `spectrum` are what was measured.

    Raises:
      ValueError: if the images are not (N, H, W, C) of a shape that the prior takes, hold NaN or whole numbers, or
        the noises do not increase.

    Example:
      prior = calibrate(prior_from_denoiser(denoise, CLD()), load_squares(list_images(folder)[:128], 64, 3))
    """
    noises = noises_of(prior) if noises is None else noises
    images, levels = np.asarray(images), np.asarray(noises, np.float64)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must be (N, H, W, C), at least one of them, got the shape {images.shape}")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"the images are {images.dtype}, but numbers in [-1, 1] are needed: x / 127.5 - 1 of 8 bits")
    if not np.isfinite(images).all():
        raise ValueError("the images hold NaN or infinite numbers")
    if prior.canvas(images.shape[1:]) != images.shape[1:]:
        wanted = "x".join(map(str, prior.canvas(images.shape[1:])))
        raise ValueError(f"the images are {'x'.join(map(str, images.shape[1:]))}, but the prior takes {wanted}")
    if levels.ndim != 1 or not len(levels) or not (levels > 0).all() or not (np.diff(levels) > 0).all():
        raise ValueError("the noises of a calibration must be positive and increase")
    images = images.astype(jnp.result_type(float))
    curve = denoising_error(prior, images, jax.random.key(0) if key is None else key, batch_size, tuple(noises))
    found = estimate_spectrum(images) if spectrum else prior.spectrum
    return dataclasses.replace(prior, calibration=curve, spectrum=found)


def noises_of(prior: Prior) -> tuple[float, ...]:
    """VALIDATION_NOISES, or of a prior of limited range those below the largest noise that it knows, and that."""
    highest = prior.highest_noise
    return VALIDATION_NOISES if highest is None else (*(s for s in VALIDATION_NOISES if s < 0.95 * highest), highest)


def denoising_error(
    prior: Prior, images: jax.Array | np.ndarray, key: jax.Array, batch_size: int = 64,
    noises: tuple[float, ...] = VALIDATION_NOISES,
) -> Calibration:  # fmt: skip
    """Mean squared error per pixel of E[x_0 | u_t] at each of `noises`.

    Args:
      prior: any prior.
      images: (N, H, W, C), held out.
      key: PRNG key; the same noise is drawn at every level.
    """
    times = prior.cld.time_of_noise(np.array(noises))
    direction, factor = prior.cld.data_direction(times), cholesky(prior.cld.covariance(times))
    rows = jax.tree.map(to_device, (coefficients(prior.cld, times), direction, factor))
    total = np.zeros(len(times))
    for start in range(0, len(images), batch_size):
        batch, batch_key = images[start : start + batch_size], jax.random.fold_in(key, start)
        for level in range(len(times)):
            row = jax.tree.map(lambda a, level=level: a[level], rows)
            total[level] += float(_errors(prior.mean, batch, batch_key, row))
    return Calibration(np.array(noises), total / len(images))


@jax.jit
def _errors(mean, batch, batch_key, row):
    """The sum over a batch of the mean squared error per pixel at one noise level; compiled once for a network."""
    c, a, f = row
    x_key, v_key = jax.random.split(batch_key)
    e_x, e_v = jax.random.normal(x_key, batch.shape), jax.random.normal(v_key, batch.shape)
    x, v = noised(a, f, batch, e_x, e_v)
    estimate = jax.vmap(lambda x, v: mean(x, v, c))(x, v)
    return jnp.sum((estimate - batch) ** 2) / batch[0].size
