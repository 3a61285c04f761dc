"""The power spectrum of photographs, as a table, and the transform that it lives in.

An orthonormal cosine transform (type 2) of rows and columns, after an orthonormal change
from RGB to one light and two colour channels, leaves the pixels of photographs nearly
uncorrelated. Their variance there falls by five orders of magnitude from the lowest to
the highest frequency, which one number for "the standard deviation of the data" hides.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.transforms import whole

KNOTS = tuple(float(f"{f:.4g}") for f in np.geomspace(1 / 128, 0.7, 12))
# Up to this side a cosine transform is a product with its matrix, and a grid of variances a table of the program; a
# larger one is a fast transform, and a grid is computed where it is needed.
DENSE_SIDE = 512
# Up to so many numbers a row is transformed with its colours by one matrix: products with 3x3 matrices are slow.
JOINT_WIDTH = 256


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
    return _columns_and_colours(cosine_transform(x, -3), inverse=False)


def backward(z: jax.Array) -> jax.Array:
    """The inverse, and the transpose, of `forward`."""
    return _columns_and_colours(cosine_transform(z, -3, True), inverse=True)


def cosine_transform(x: jax.Array, axis: int, inverse: bool = False) -> jax.Array:
    """The orthonormal type-2 cosine transform of one axis of (..., H, W, C), -3 or -2, or its inverse."""
    side = x.shape[axis]
    if side > DENSE_SIDE:
        transform = jax.scipy.fft.idct if inverse else jax.scipy.fft.dct
        return whole(lambda x: transform(x, norm="ortho", axis=axis), x).astype(x.dtype)
    matrix = cosine_matrix(side)
    product = "ij,...jkc->...ikc" if axis == -3 else "lk,...ikc->...ilc"
    matrix = jnp.asarray(matrix.T if inverse else matrix, x.dtype)
    return jnp.einsum(product, matrix, x, precision=jax.lax.Precision.HIGHEST)


def _columns_and_colours(x: jax.Array, inverse: bool) -> jax.Array:
    width, channels = x.shape[-2:]
    colours, highest = colour_matrix(channels), jax.lax.Precision.HIGHEST
    if width * channels <= JOINT_WIDTH:
        matrix = np.kron(cosine_matrix(width), colours)  # acts on the numbers of a row, (W C)
        matrix = jnp.asarray(matrix if inverse else matrix.T, x.dtype)
        return jnp.matmul(x.reshape(*x.shape[:-2], -1), matrix, precision=highest).reshape(x.shape)
    matrix = jnp.asarray(colours.T if inverse else colours, x.dtype)
    return jnp.einsum("dc,...ilc->...ild", matrix, cosine_transform(x, -2, inverse), precision=highest)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The variance of each coefficient by its frequency, interpolated in the logarithm.

    Args:
      variance: a tuple for each channel of `colour_matrix`, its value at each of KNOTS,
        radial frequencies in cycles per pixel.
      mean_power: for each channel, the mean square of an image's mean. It stands for the
        one coefficient of frequency zero, which is no density: it grows with the image.
    """

    variance: tuple[tuple[float, ...], ...]
    mean_power: tuple[float, ...]

    def at(self, frequency: np.ndarray) -> np.ndarray:
        """The variances at frequencies in cycles per pixel, of any shape (...): (..., C)."""
        level = np.log(np.maximum(frequency, KNOTS[0]))
        out = np.empty((*np.shape(frequency), len(self.variance)))
        for channel, row in enumerate(np.log(self.variance)):
            out[..., channel] = np.interp(level, np.log(KNOTS), row)
        return np.exp(out, out=out)

    def grid(self, height: int, width: int) -> np.ndarray:
        """The variances at (height, width, C), for any size; kept for the next caller, so it cannot be written to."""
        return _grid(self, int(height), int(width))

    def variances(self, height: int, width: int, dtype=None) -> jax.Array:
        """`grid` in a program: a table of it up to sides of DENSE_SIDE, else interpolated where it is needed."""
        dtype = jnp.result_type(float) if dtype is None else dtype
        if max(height, width) <= DENSE_SIDE:
            return jnp.asarray(self.grid(height, width), dtype)
        rows, columns = (jnp.arange(n, dtype=dtype) / (2 * n) for n in (height, width))
        frequency = jnp.hypot(rows[:, None], columns)[..., None]
        knots, values = np.log(KNOTS), np.log(self.variance).T
        level = jnp.log(jnp.clip(frequency, KNOTS[0], KNOTS[-1]))
        found = jnp.asarray(values[0], dtype)
        for low, high, at, slope in zip(knots, knots[1:], values, np.diff(values, axis=0), strict=False):
            line = jnp.asarray(at, dtype) + jnp.asarray(slope / (high - low), dtype) * (level - low)
            found = jnp.where(level > low, line, found)
        return jnp.exp(found).at[0, 0].set(jnp.asarray(np.array(self.mean_power) * height * width, dtype))


@functools.lru_cache(maxsize=8)
def _grid(spectrum: Spectrum, height: int, width: int) -> np.ndarray:
    grid = spectrum.at(_frequencies(height, width))
    grid[0, 0] = np.array(spectrum.mean_power) * height * width
    grid.flags.writeable = False
    return grid


@flax.struct.dataclass
class SpectralGaussian:
    """A Gaussian of mean zero whose coefficients are independent, as a denoiser: the Wiener filter.

    denoise(x, s) = T' V/(V + s^2) T x, with T of `forward` and V its variances, of x's shape.
    """

    variance: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        return backward(self.variance / (self.variance + sigma**2) * forward(x))


def _frequencies(height: int, width: int) -> np.ndarray:
    """(H, W): the radial frequency of each coefficient of `forward`."""
    rows, columns = np.arange(height) / (2 * height), np.arange(width) / (2 * width)
    return np.hypot(rows[:, None], columns[None])


def _told_apart(frequencies: np.ndarray) -> np.ndarray:
    """The logarithms of those of KNOTS that frequencies > 0 tell apart: one of them lies between any two."""
    kept: list[float] = []
    for knot in KNOTS:
        low = kept[-1] if kept else 0.0
        if ((frequencies > low) & (frequencies <= knot * (1 + 1e-3))).any():  # knots have four digits
            kept.append(knot)
    return np.log(kept or KNOTS[-1:])


def _knot_weights(level: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """(..., knots): each log frequency between two knots, linearly."""
    return np.stack([np.interp(level, knots, row) for row in np.eye(len(knots))], -1)


def estimate_spectrum(images: np.ndarray, iterations: int = 100) -> Spectrum:
    """The spectrum of images (N, H, W, C).

    The fixed point of V_k <- V_k sum_f w_fk P_f / V(f) / sum_f w_fk, with P the mean power
    of each coefficient and w the knots' weights: power over variance then averages to one
    around every knot, as at the maximum of the Gaussian likelihood. Images so small that their
    frequencies do not tell all knots apart have fewer; the rest lie on the line between those.
    """
    batches = [x for x in np.array_split(images, 8) if len(x)]
    coefficients = np.concatenate([np.asarray(forward(jnp.asarray(x))) for x in batches])
    power = np.maximum(np.mean(coefficients.astype(np.float64) ** 2, 0), 1e-8)
    height, width, channels = power.shape
    frequencies, rest = _frequencies(height, width).reshape(-1)[1:], power.reshape(-1, channels)[1:]
    knots = _told_apart(frequencies)
    weights = _knot_weights(np.log(frequencies), knots)
    total = weights.sum(0)[:, None]
    variance = np.full((len(knots), channels), rest.mean(0))
    for _ in range(iterations):
        ratio = rest / np.exp(weights @ np.log(variance))
        step = np.divide(weights.T @ ratio, total, out=np.ones_like(variance), where=total > 0)
        variance = variance * step
    every = np.exp([np.interp(np.log(KNOTS), knots, row) for row in np.log(variance.T)])
    rounded = lambda values: tuple(float(f"{v:.5g}") for v in values)  # noqa: E731
    return Spectrum(tuple(map(rounded, every)), rounded(power[0, 0] / (height * width)))
