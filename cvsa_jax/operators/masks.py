"""Inpainting: pixels are seen or not, all channels alike."""

import dataclasses
from typing import cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from cvsa_jax.noise import GaussianNoise
from cvsa_jax.numerics import ratio
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.mask_files import AUTO, MEANS, MaskPicture, read_mask
from cvsa_jax.operators.paired_files import PairedFiles
from cvsa_jax.operators.task import Task, scaled
from cvsa_jax.settings import Settings, setting

DETAIL = 0.15  # the deviation of photographs' pixels within squares of a few


@flax.struct.dataclass
class Mask(Operator):
    """H(x) = seen * x.

    Args:
      seen: (H, W, 1), one where the pixel is measured and zero where it is missing. Between them the pixel is
        measured with that gain, as through a filter: y = seen x + n. Its data then weigh seen^2 / sigma^2, so that
        of a photograph x + n, multiplied by `seen`, each pixel counts as much as it is seen.
    """

    seen: jax.Array

    @property
    def by_entry(self) -> bool:
        return True

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.seen * x

    def restrict(self, y: jax.Array) -> jax.Array:
        return jnp.where(self.seen != 0, y, 0.0)

    def pixels(self, y: jax.Array) -> jax.Array:
        """The pixels that y tells of, without the gain of a soft mask; zero where nothing is seen."""
        return ratio(y, jnp.broadcast_to(jnp.asarray(self.seen, y.dtype), y.shape))

    def reduced(self, y, noise, factor):
        """Of each square the mean of what is seen there, by its precision p_i = seen^2 / sigma^2; y' = sum p x / sum p.

        Its variance is 1 / sum p and, as a few pixels stand for the square, DETAIL^2 (1/k - 1/factor^2), k of them.
        """
        seen = jnp.asarray(self.seen, y.dtype)
        precision = jnp.broadcast_to(seen**2 / noise.variance(y), y.shape)
        margins = ((0, -y.shape[0] % factor), (0, -y.shape[1] % factor), (0, 0))

        def sums(a):
            a = jnp.pad(a, margins)
            return a.reshape(a.shape[0] // factor, factor, a.shape[1] // factor, factor, -1).sum((1, 3))

        weight, count = sums(precision), sums((seen != 0).astype(y.dtype))
        some = count > 0
        mean = ratio(sums(precision * self.pixels(y)), weight)
        spread = DETAIL**2 * jnp.maximum(1 / jnp.maximum(count, 1) - 1 / factor**2, 0)
        variance = jnp.where(some, ratio(jnp.ones_like(weight), weight) + spread, 1)
        return mean, Mask(some.astype(y.dtype)), GaussianNoise(jnp.sqrt(variance))

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + prior_variance * self.seen**2)

    def padded(self, shape, larger):
        below, right = larger[0] - shape[0], larger[1] - shape[1]
        return Mask(jnp.pad(jnp.asarray(self.seen), ((0, below), (0, right), (0, 0))))

    def picture(self) -> np.ndarray:
        """White is missing."""
        return 1 - 2 * np.asarray(self.seen)


def given_mask(seen: np.ndarray, height: int, width: int) -> Mask:
    """A mask of (height, width) numbers: one (or true) where the pixel is known, zero where it is missing.

    Raises:
      ValueError: if it is of another size.
    """
    if seen.shape != (height, width):
        have, turned = "x".join(map(str, seen.shape)), seen.shape == (width, height)
        hint = ": it lies on its side" if turned else ""
        raise ValueError(f"the mask has {have} pixels, but the image has {height}x{width}{hint}")
    return Mask(jnp.asarray(seen[..., None], jnp.float32))


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


@dataclasses.dataclass(frozen=True)
class BoxSettings(Settings):
    """A square hole."""

    box_size: int | None = setting(None, "Side of the hole.", "pixels", low=1, otherwise="half the image's side")
    box_margin: int | None = setting(
        None, "Least distance of the hole from the border.", "pixels", low=0, otherwise="1/16 of the image's side"
    )


@dataclasses.dataclass(frozen=True)
class RandomSettings(Settings):
    """Lost pixels."""

    missing: float = setting(0.92, "Share of the pixels that is lost.", low=0, below=1)


@dataclasses.dataclass(frozen=True)
class MaskSettings(Settings):
    """A mask file."""

    mask: str | np.ndarray | MaskPicture | PairedFiles | None = setting(
        None, "Mask file, or a folder with one for each image.", reads=read_mask
    )
    mask_means: str = setting(AUTO, "What of a mask file is missing.", choices=MEANS)


def _box(generator, height, width, settings: BoxSettings) -> Mask:
    side = min(height, width)
    box = round(scaled(128, side)) if settings.box_size is None else settings.box_size
    margin = round(scaled(16, side)) if settings.box_margin is None else settings.box_margin
    return box_mask(generator, height, width, box, margin)


def _random(generator, height, width, settings: RandomSettings) -> Mask:
    return random_mask(generator, height, width, settings.missing)


def _given(generator, height, width, settings: MaskSettings) -> Mask:
    if settings.mask is None:
        raise ValueError("mask_inpaint needs a mask file: --mask=FILE")
    return given_mask(cast(np.ndarray, settings.mask), height, width)  # the file has been read


# What a hole is filled with must fit its border: over 200 levels it is drawn afresh until it does. A wide one needs
# what the prior knows of whole things, which it does at its own size. Samples cannot forget what they drew; a seam
# shows unless the chain is corrected at each noise level.
_HOLE = {"num_steps": 200, "start": "coarse"}
_HOLE_SAMPLES = {
    "sampler": "ancestral", "guidance": "covariance", "num_steps": 25, "num_corrections": 7, "data_weight": 1.0,
}  # fmt: skip
TASKS = (
    Task(
        "box_inpaint", "a square hole at a random place", _box, (Mask,), BoxSettings, drawn_by=("mask",),
        accuracy=_HOLE, posterior=_HOLE_SAMPLES,
    ),
    # Where much is left open, the noise of each step costs texture that few steps do not bring back; a flow has none.
    Task(
        "random_inpaint", "most pixels lost at random", _random, (Mask,), RandomSettings, drawn_by=("mask",),
        posterior={"sampler": "multistep"},
    ),
    Task(
        "mask_inpaint", "a hole given as a mask file", _given, (Mask,), MaskSettings, requires=("mask",),
        accuracy=_HOLE, posterior=_HOLE_SAMPLES,
    ),
)  # fmt: skip
