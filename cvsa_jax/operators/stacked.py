"""Measurements that are complex, or of several parts, as one real vector."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.operators.base import Operator, parts_of


class Parts(NamedTuple):
    """How a measurement lies in a vector: its tree, and each leaf's shape and whether it is complex.

    A complex leaf is its real numbers, then its imaginary ones.
    """

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    complex: tuple[bool, ...]

    def pack(self, y: Any) -> jax.Array:
        """One real vector."""
        pieces = []
        for leaf, is_complex in zip(jax.tree.leaves(y), self.complex, strict=True):
            pieces += [leaf.real.ravel(), leaf.imag.ravel()] if is_complex else [leaf.ravel()]
        return jnp.concatenate(pieces)

    def unpack(self, vector: jax.Array) -> Any:
        """The inverse of `pack`."""
        sizes = [int(np.prod(s)) * (2 if c else 1) for s, c in zip(self.shapes, self.complex, strict=True)]
        leaves = []
        for piece, shape, is_complex in zip(
            jnp.split(vector, np.cumsum(sizes)[:-1]), self.shapes, self.complex, strict=True
        ):
            if is_complex:
                real, imaginary = jnp.split(piece, 2)
                leaves.append(jax.lax.complex(real.reshape(shape), imaginary.reshape(shape)))
            else:
                leaves.append(piece.reshape(shape))
        return jax.tree.unflatten(self.tree, leaves)


@flax.struct.dataclass
class Stacked(Operator):
    """An operator whose measurement is packed into one real vector."""

    operator: Operator
    parts: Parts = flax.struct.field(pytree_node=False)

    def __call__(self, x: jax.Array, *kernel: jax.Array) -> jax.Array:
        return self.parts.pack(self.operator(x, *kernel))

    def offers(self, method: str) -> bool:
        return method not in ("reduced", "near_gram", "blur_kernel", "picture") and self.operator.offers(method)

    def restrict(self, y: jax.Array) -> jax.Array:
        return self.parts.pack(self.operator.restrict(self.parts.unpack(y)))

    def measure(self, x: jax.Array) -> jax.Array:
        return self.parts.pack(self.operator.measure(x))

    def expected(self, x: jax.Array, std: jax.Array) -> jax.Array:
        return self.parts.pack(self.operator.expected(x, std))

    def project(self, x: jax.Array, y: jax.Array) -> jax.Array | None:
        return self.operator.project(x, self.parts.unpack(y))

    def first_guess(self, y: jax.Array, key: jax.Array) -> jax.Array | None:
        return self.operator.first_guess(self.parts.unpack(y), key)

    def solve_gram(self, r: jax.Array, noise_variance, prior_variance) -> jax.Array | None:
        found = self.operator.solve_gram(self.parts.unpack(r), noise_variance, prior_variance)
        return None if found is None else self.parts.pack(found)


def stack(measurement: Any, operator: Operator, noise: NoiseModel) -> tuple[jax.Array, Operator, NoiseModel]:
    """The three of them for a measurement that is one real array; such a one is returned as it is.

    Raises:
      ValueError: as `parts_of` does.
    """
    leaves, tree = jax.tree.flatten(measurement)
    shapes = tuple(tuple(jnp.shape(leaf)) for leaf in leaves)
    noises = parts_of(noise, shapes)
    if len(leaves) == 1 and leaves[0] is measurement and not jnp.iscomplexobj(measurement):
        return measurement, operator, noises[0]
    parts = Parts(tree, shapes, tuple(bool(jnp.iscomplexobj(leaf)) for leaf in leaves))
    if isinstance(noise, GaussianNoise) and not (jax.tree_util.all_leaves([noise.std]) and jnp.ndim(noise.std) == 0):
        noise = GaussianNoise(_spread([cast(GaussianNoise, one).std for one in noises], parts))
    return parts.pack(measurement), Stacked(operator, parts), noise


def _spread(stds: Sequence, parts: Parts) -> jax.Array:
    """A deviation for each part, or entry, of the measurement as one for each number of the vector."""
    filled = []
    for std, shape, is_complex in zip(stds, parts.shapes, parts.complex, strict=True):
        one = jnp.broadcast_to(jnp.asarray(std, jnp.result_type(float)), shape).ravel()
        filled += [one, one] if is_complex else [one]
    return jnp.concatenate(filled)
