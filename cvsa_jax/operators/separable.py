"""Operators that act on rows and columns apart: Gaussian blur and bicubic down-sampling.

H(x) = A x B' for each channel, as two matrix products. A A' and B B' are diagonalised
once on the host, which gives every inner solve in closed form.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator


@flax.struct.dataclass
class Separable(Operator):
    """H(x) = A x B', channel by channel.

    Args:
      rows: A, (m, H). columns: B, (n, W).
      row_basis, row_values: eigenvectors (m, m) and eigenvalues (m,) of A A'.
      column_basis, column_values: the same of B B'.
    """

    rows: jax.Array
    columns: jax.Array
    row_basis: jax.Array
    row_values: jax.Array
    column_basis: jax.Array
    column_values: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return _both(self.rows, x, self.columns)

    def solve_gram(self, r, noise_variance, prior_variance):
        spectrum = self.row_values[:, None, None] * self.column_values[None, :, None]
        coordinates = _both(self.row_basis.T, r, self.column_basis.T)
        return _both(self.row_basis, coordinates / (noise_variance + prior_variance * spectrum), self.column_basis)

    def blur_kernel(self) -> np.ndarray | None:
        """Of a blur; None of a Gaussian so wide that it reaches both borders, where it is folded back."""
        if self.rows.shape[0] == self.rows.shape[1]:
            middles = [np.asarray(m)[len(m) // 2] for m in (self.rows, self.columns)]
            if all(m[0] == m[-1] == 0 for m in middles):
                return np.outer(*(m[m > 0] for m in middles))
        return None


def _both(left: jax.Array, x: jax.Array, right: jax.Array) -> jax.Array:
    """left x right' over the first two axes; full float32 products on every backend."""
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ij,jkc->ikc", left, x, precision=highest)
    return jnp.einsum("lk,ikc->ilc", right, x, precision=highest)


def separable(rows: np.ndarray, columns: np.ndarray) -> Separable:
    """From float64 matrices A (m, H) and B (n, W)."""
    parts = [rows, columns]
    for matrix in (rows, columns):
        values, basis = np.linalg.eigh(matrix @ matrix.T)
        parts += [basis, np.maximum(values, 0)]
    return Separable(*(jnp.asarray(p, jnp.result_type(float)) for p in parts))


def reflect(index: np.ndarray, size: int) -> np.ndarray:
    """Indices mirrored about the outermost pixels, as often as needed: ... 2 1 [0 1 2] 1 0 ..."""
    if size == 1:
        return np.zeros_like(index)
    index = np.mod(index, 2 * (size - 1))
    return np.where(index < size, index, 2 * (size - 1) - index)


def mirror(index: np.ndarray, size: int) -> np.ndarray:
    """Indices mirrored about the border itself: ... 1 0 [0 1 2] 2 1 ..."""
    index = np.mod(index, 2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def gaussian_weights(std: float, truncate: float = 4.0) -> np.ndarray:
    """The sampled Gaussian, cut at `truncate` deviations, sum 1.

    Raises:
      ValueError: if std is not positive.
    """
    if not std > 0:
        raise ValueError(f"the blur's standard deviation must be positive, got {std}")
    radius = int(truncate * std + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / std) ** 2)
    return weights / weights.sum()


def _blur_matrix(size: int, weights: np.ndarray) -> np.ndarray:
    radius = len(weights) // 2
    matrix = np.zeros((size, size))
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        np.add.at(matrix, (np.arange(size), reflect(np.arange(size) + offset, size)), weight)
    return matrix


def gaussian_blur(height: int, width: int, std: float) -> Separable:
    """Blur by a Gaussian of standard deviation `std` pixels; the image is reflected at its border.

    Raises:
      ValueError: if std is not positive.
    """
    weights = gaussian_weights(std)
    return separable(_blur_matrix(height, weights), _blur_matrix(width, weights))


def cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """The interpolating cubic of Keys (1981), zero from 2 on."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def bicubic_matrix(size: int, factor: int) -> np.ndarray:
    """Rows of bicubic down-sampling: (ceil(size / factor), size), each row of sum 1.

    Output i sits at (i + 1/2) factor - 1/2; the cubic (a = -1/2) is stretched by the
    factor, which suppresses aliasing, and the image is mirrored at its border.
    """
    count = -(-size // factor)
    matrix = np.zeros((count, size))
    for i in range(count):
        centre = (i + 0.5) * factor - 0.5
        taps = np.arange(int(np.floor(centre - 2 * factor)), int(np.ceil(centre + 2 * factor)) + 1)
        weights = cubic((taps - centre) / factor)
        np.add.at(matrix[i], mirror(taps, size), weights / weights.sum())
    return matrix


def reduction_factor(matrix: np.ndarray) -> int:
    """The factor of a matrix (m, size) of `bicubic_matrix`; 1 of a square one."""
    count, size = matrix.shape
    fitting = [f for f in range(2, size + 1) if -(-size // f) == count < size]
    return min(fitting, key=lambda f: np.abs(bicubic_matrix(size, f) - matrix).max(), default=1)


def bicubic_downsample(height: int, width: int, factor: int) -> Separable:
    """Bicubic down-sampling by a whole factor with anti-aliasing; any height and width.

    Raises:
      ValueError: if the factor is below 1.
    """
    if factor < 1:
        raise ValueError(f"the factor must be at least 1, got {factor}")
    return separable(bicubic_matrix(height, factor), bicubic_matrix(width, factor))
