"""A linear operator given as a matrix, for problems of few numbers."""

import flax.struct
import jax
import jax.numpy as jnp

from cvsa_jax.numerics import at_least_single
from cvsa_jax.operators.base import Operator


@flax.struct.dataclass
class Matrix(Operator):
    """H(x) = A vec(x).

    Args:
      matrix: A, (m, n), with n the number of pixels times channels.
    """

    matrix: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.matrix @ x.ravel()

    def solve_gram(self, r, noise_variance, prior_variance):
        matrix = at_least_single(self.matrix)
        gram = prior_variance * matrix @ matrix.T
        return jnp.linalg.solve(gram + noise_variance * jnp.eye(len(gram), dtype=gram.dtype), r)
