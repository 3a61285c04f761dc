"""What guidance must know of a prior beside its denoiser: how far it errs at each noise, and in which frequencies."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.priors import Calibration, Prior, coefficients
from cvsa_jax.pyramid import levels_of
from cvsa_jax.samplers.base import cholesky, noised, to_device
from cvsa_jax.spectral import Spectrum, estimate_spectrum

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

    Returns: the prior; its fields `calibration` and `spectrum` are what was measured, or for images of twice the side
      of a pyramid's and more those of `larger` and `larger_spectra`. With a spectrum it is of the images' channels.

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
    return _told(prior, images.shape[1:], curve, estimate_spectrum(images) if spectrum else None)


def _told(prior: Prior, image_shape: tuple[int, ...], curve: Calibration, spectrum: Spectrum | None) -> Prior:
    """The same prior, which knows what was measured on images of a shape, where `Prior.at` looks for it."""
    told: dict[str, Any] = {} if spectrum is None else {"channels": image_shape[-1]}
    level = min(levels_of(image_shape, prior.image_size), len(prior.larger))
    if not level:
        told |= {"calibration": curve} | ({} if spectrum is None else {"spectrum": spectrum})
        return dataclasses.replace(prior, **told)
    put = lambda many, one: (*many[: level - 1], one, *many[level:])  # noqa: E731
    if spectrum is not None:
        told["larger_spectra"] = put(prior.larger_spectra or (prior.spectrum,) * len(prior.larger), spectrum)
    return dataclasses.replace(prior, larger=put(prior.larger, curve), **told)


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
      key: PRNG key, of which each image has its own; the same noise is drawn at every level.
    """
    times = prior.cld.time_of_noise(np.array(noises))
    direction, factor = prior.cld.data_direction(times), cholesky(prior.cld.covariance(times))
    rows = jax.tree.map(to_device, (coefficients(prior.cld, times), direction, factor))
    total = np.zeros(len(times))
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(np.arange(len(images)))
    for start in range(0, len(images), batch_size):
        batch, own = images[start : start + batch_size], keys[start : start + batch_size]
        for level in range(len(times)):
            row = jax.tree.map(lambda a, level=level: a[level], rows)
            total[level] += np.asarray(_errors(prior.mean, batch, own, row), np.float64).sum()
    return Calibration(np.array(noises), total / len(images))


@jax.jit
def _errors(mean, batch, keys, row):
    """The mean squared error per pixel of each image at one noise level; compiled once for a network."""
    c, a, f = row

    def one(image, key):
        x_key, v_key = jax.random.split(key)
        e_x, e_v = jax.random.normal(x_key, image.shape), jax.random.normal(v_key, image.shape)
        x, v = noised(a, f, image, e_x, e_v)
        return jnp.mean((mean(x, v, c) - image) ** 2)

    return jax.vmap(one)(batch, keys)
