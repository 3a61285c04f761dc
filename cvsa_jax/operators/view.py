"""A part of a canvas, seen by an operator."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import spectral
from cvsa_jax.operators.base import Operator


@flax.struct.dataclass
class View(Operator):
    """H of a part of the canvas: its top left (height, width), `averaged` channels made one.

    The crop lets a network that needs multiples of its stride restore any size: the
    margin is filled by the prior and cut off afterwards. The average serves a grey
    measurement under a colour prior. With C the crop and G the average of c channels,
    C C' = I and G G' = I/c, so the operator's closed form of H H' stays valid.

    Args:
      operator: H. height, width: of the part, in pixels.
      averaged: how many channels are averaged into one; 1 leaves them as they are.
    """

    operator: Operator
    height: int = flax.struct.field(pytree_node=False)
    width: int = flax.struct.field(pytree_node=False)
    averaged: int = flax.struct.field(pytree_node=False, default=1)

    @property
    def by_entry(self) -> bool:
        return self.operator.by_entry

    @property
    def gram_iterations(self) -> int:
        return self.operator.gram_iterations

    def crop(self, x: jax.Array) -> jax.Array:
        """The part of the canvas that is looked at."""
        x = x[: self.height, : self.width]
        return x.mean(-1, keepdims=True) if self.averaged > 1 else x

    def __call__(self, x: jax.Array, *kernel: jax.Array):
        return self.operator(self.crop(x), *kernel)

    def offers(self, method: str) -> bool:
        return self.operator.offers(method)

    def restrict(self, y):
        return self.operator.restrict(y)

    def measure(self, x: jax.Array):
        return self.operator.measure(self.crop(x))

    def expected(self, x: jax.Array, std: jax.Array):
        return self.operator.expected(self.crop(x), std)

    def project(self, x: jax.Array, y) -> jax.Array | None:
        """On the canvas; of averaged channels, each is moved alike."""
        seen = self.crop(x)
        found = self.operator.project(seen, y)
        return None if found is None else x.at[: self.height, : self.width].add(found - seen)

    def first_guess(self, y, key: jax.Array) -> jax.Array | None:
        """Of the part; the loop fits it to the canvas."""
        return self.operator.first_guess(y, key)

    def reduced(self, y, noise, factor):
        """The same view of a smaller canvas."""
        found = self.operator.reduced(y, noise, factor)
        if found is None:
            return None
        height, width = -(-self.height // factor), -(-self.width // factor)
        return found[0], View(found[1], height, width, self.averaged), found[2]

    def solve_gram(self, r: jax.Array, noise_variance, prior_variance) -> jax.Array | None:
        return self.operator.solve_gram(r, noise_variance, prior_variance / self.averaged)

    def near_gram(self, r: jax.Array, noise_variance, variances: jax.Array) -> jax.Array | None:
        """With the variances of the channels' mean, G S G', where they are averaged."""
        if self.averaged > 1:
            shares = spectral.colour_matrix(self.averaged).mean(1) ** 2
            variances = variances @ jnp.asarray(shares[:, None], variances.dtype)
        return self.operator.near_gram(r, noise_variance, variances)

    def blur_kernel(self) -> np.ndarray | None:
        return self.operator.blur_kernel()

    def picture(self) -> np.ndarray | None:
        return self.operator.picture()
