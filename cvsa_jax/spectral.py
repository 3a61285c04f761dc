"""The power spectrum of photographs, as a table, and the transform that it lives in.

An orthonormal cosine transform (type 2) of rows and columns, after an orthonormal change
from RGB to one light and two colour channels, leaves the pixels of photographs nearly
uncorrelated. Their variance there falls by five orders of magnitude from the lowest to
the highest frequency, which one number for "the standard deviation of the data" hides.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

KNOTS = tuple(float(f"{f:.4g}") for f in np.geomspace(1 / 128, 0.7, 12))


@functools.lru_cache(maxsize=32)
def cosine_matrix(size: int) -> np.ndarray:
    """Rows are the orthonormal type-2 cosine basis of that length, in float64."""
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (n + 0.5) * k / size)
    matrix[0] /= 2**0.5
    return matrix


def colour_matrix(channels: int) -> np.ndarray:
    """Orthonormal rows: light, red against blue, green against both; the identity unless RGB."""
    if channels != 3:
        return np.eye(channels)
    return np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3.0], [2.0], [6.0]])


def forward(x: jax.Array) -> jax.Array:
    """(..., H, W, C) pixels to coefficients of the same shape; keeps sums of squares."""
    rows, columns, colours = (jnp.asarray(m, x.dtype) for m in _matrices(x.shape))
    return _apply(rows, columns, colours, x)


def backward(z: jax.Array) -> jax.Array:
    """The inverse, and the transpose, of `forward`."""
    rows, columns, colours = (jnp.asarray(m.T, z.dtype) for m in _matrices(z.shape))
    return _apply(rows, columns, colours, z)


def _matrices(shape):
    return cosine_matrix(shape[-3]), cosine_matrix(shape[-2]), colour_matrix(shape[-1])


def _apply(rows, columns, colours, x):
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ij,...jkc->...ikc", rows, x, precision=highest)
    x = jnp.einsum("lk,...ikc->...ilc", columns, x, precision=highest)
    return jnp.einsum("dc,...ilc->...ild", colours, x, precision=highest)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The variance of each coefficient by its frequency, interpolated in the logarithm.

    Args:
      variance: a tuple for each channel of `colour_matrix`, its value at each of KNOTS,
        radial frequencies in cycles per pixel.
    """

    variance: tuple[tuple[float, ...], ...]

    def grid(self, height: int, width: int) -> np.ndarray:
        """The variances at (height, width, C), for any size: they are a density."""
        rows, columns = np.arange(height) / (2 * height), np.arange(width) / (2 * width)
        frequency = np.hypot(rows[:, None], columns[None])
        level = np.log(np.maximum(frequency, KNOTS[0]))
        curves = [np.exp(np.interp(level, np.log(KNOTS), np.log(v))) for v in self.variance]
        return np.stack(curves, -1)


def estimate_spectrum(images: np.ndarray) -> Spectrum:
    """The spectrum of images (N, H, W, C), by least squares in the logarithm around each knot."""
    coefficients = np.concatenate([np.asarray(forward(jnp.asarray(x))) for x in np.array_split(images, 8) if len(x)])
    power = np.mean(coefficients.astype(np.float64) ** 2, 0)
    height, width = power.shape[:2]
    rows, columns = np.arange(height) / (2 * height), np.arange(width) / (2 * width)
    frequency = np.hypot(rows[:, None], columns[None]).ravel()[1:]
    # Each frequency is a mixture of its two knots: the interpolation's own design matrix.
    design = np.stack([np.interp(np.log(frequency), np.log(KNOTS), row) for row in np.eye(len(KNOTS))], -1)
    ridge = 1e-3 * np.eye(len(KNOTS))
    curves = []
    for channel in range(power.shape[-1]):
        target = np.log(np.maximum(power[..., channel].ravel()[1:], 1e-8))
        centre = target.mean()
        solution = np.linalg.solve(design.T @ design + ridge, design.T @ (target - centre))
        curves.append(tuple(float(f"{v:.5g}") for v in np.exp(solution + centre)))
    return Spectrum(tuple(curves))
