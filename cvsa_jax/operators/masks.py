"""Inpainting: pixels are seen or not, all channels alike."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Mask:
    """H(x) = seen * x.

    Args:
      seen: (H, W, 1), one where the pixel is measured and zero where it is missing.
    """

    seen: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.seen * x

    def restrict(self, y: jax.Array) -> jax.Array:
        return self.seen * y

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + prior_variance * self.seen)


def box_mask(generator: np.random.Generator, height: int, width: int, box: int, margin: int) -> Mask:
    """A square hole of side `box`, at a uniform position at least `margin` from the border.

    Raises:
      ValueError: if it does not fit.
    """
    if box < 1 or box + 2 * margin > min(height, width):
        raise ValueError(f"a box of {box} pixels with a margin of {margin} does not fit {height}x{width}")
    top = int(generator.integers(margin, height - box - margin + 1))
    left = int(generator.integers(margin, width - box - margin + 1))
    seen = np.ones((height, width, 1), np.float32)
    seen[top : top + box, left : left + box] = 0
    return Mask(jnp.asarray(seen))


def random_mask(generator: np.random.Generator, height: int, width: int, missing: float) -> Mask:
    """An exact count of pixels, the share `missing` rounded, is lost at random.

    Raises:
      ValueError: if `missing` is not in [0, 1).
    """
    if not 0 <= missing < 1:
        raise ValueError(f"the missing share must be in [0, 1), got {missing}")
    seen = np.ones(height * width, np.float32)
    seen[generator.permutation(height * width)[: round(missing * height * width)]] = 0
    return Mask(jnp.asarray(seen.reshape(height, width, 1)))
