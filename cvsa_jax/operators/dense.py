"""A linear operator given as a matrix, for problems of few numbers."""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp


class SpectralForm(NamedTuple):
    """H = U diag(s) V' with V square.

    singular_values: (n,), zeros filled up to the number of pixels. forward: image -> V' x.
    backward: its inverse. pseudo_inverse: y -> diag(s)^+ U' y, zero where s is.
    """

    singular_values: jax.Array
    forward: Callable
    backward: Callable
    pseudo_inverse: Callable


@flax.struct.dataclass
class Matrix:
    """H(x) = A vec(x).

    Args:
      matrix: A, (m, n), with n the number of pixels times channels.
    """

    matrix: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.matrix @ x.ravel()

    def solve_gram(self, r, noise_variance, prior_variance):
        gram = prior_variance * self.matrix @ self.matrix.T
        return jnp.linalg.solve(gram + noise_variance * jnp.eye(len(gram), dtype=gram.dtype), r)

    def spectral_form(self, image_shape: tuple[int, ...]) -> SpectralForm:
        """By singular value decomposition."""
        u, s, vt = jnp.linalg.svd(self.matrix, full_matrices=True)
        n, rank = vt.shape[0], s.shape[0]
        inverse = jnp.where(s > 1e-6 * s[0], 1 / jnp.maximum(s, 1e-30), 0.0)
        return SpectralForm(
            jnp.zeros(n, s.dtype).at[:rank].set(s),
            lambda x: vt @ x.ravel(),
            lambda z: (vt.T @ z).reshape(image_shape),
            lambda y: jnp.zeros(n, s.dtype).at[:rank].set(inverse * (u.T @ y.ravel())[:rank]),
        )
