"""Inpainting: pixels are seen or not, all channels alike."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw


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


def hand_mask(generator: np.random.Generator, height: int, width: int) -> Mask:
    """What a hand that holds the object from below hides: an arm, a palm and four fingers, as brush strokes.

    It comes from the left or the right lower corner and hides about a tenth to a fifth of the image.
    """
    side = min(height, width)
    picture = Image.new("L", (width, height))
    brush = ImageDraw.Draw(picture)

    def stroke(start, end, thickness):
        brush.line([start, end], 255, round(thickness))
        for x, y in (start, end):
            brush.ellipse([x - thickness / 2, y - thickness / 2, x + thickness / 2, y + thickness / 2], 255)

    flip = generator.random() < 0.5
    place = lambda x, y: (width * (1 - x if flip else x), height * y)  # noqa: E731
    palm = generator.uniform(0.12, 0.25), generator.uniform(0.7, 0.85)
    stroke(place(-0.05, 1.05), place(*palm), 0.18 * side)
    for finger in range(4):
        reach = generator.uniform(0.3, 0.45)
        angle = np.radians(-38 + 22 * finger + generator.uniform(-5, 5))
        tip = palm[0] + reach * np.cos(angle), palm[1] + 0.7 * reach * np.sin(angle)
        stroke(place(*palm), place(*tip), 0.07 * side)
    return Mask(jnp.asarray(np.asarray(picture)[..., None] < 128, jnp.float32))
