"""Pictures that state something, masks and kernels: their levels at full depth, which no one looks at."""

import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cvsa_jax.types import InputError

# Channels that differ by less are of a grey picture, stored in colour by a lossy program.
ALIKE = 8 / 255


class Levels(NamedTuple):
    """A picture in [0, 1]: grey (H, W); colour (H, W, 3) or None of a grey one; alpha (H, W) or None."""

    grey: np.ndarray
    colour: np.ndarray | None
    alpha: np.ndarray | None


def read_levels(path: str | pathlib.Path) -> Levels:
    """A picture of any depth, turned upright by its EXIF tag, its first page.

    8 and 16 bits are divided by their largest level; whole numbers of 32 bits and floats that go beyond 1, by their
    own largest one.

    Raises:
      InputError: if it cannot be read as an image, or has negative levels or NaN.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                return Levels(np.asarray(image, np.float64) / 65535, None, None)
            if image.mode in ("I", "F"):
                return Levels(_unit(np.asarray(image, np.float64), path), None, None)
            pixels = np.asarray(image.convert("RGBA"), np.float64) / 255
            grey = np.asarray(image.convert("RGB").convert("L"), np.float64) / 255
            transparent = "A" in image.getbands() or "transparency" in image.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path} as an image: {error}") from error
    colour, alpha = pixels[..., :3], pixels[..., 3]
    coloured = np.ptp(colour, axis=-1).max() > ALIKE
    return Levels(grey, colour if coloured else None, alpha if transparent and alpha.min() < 1 else None)


def _unit(levels: np.ndarray, path: str | pathlib.Path) -> np.ndarray:
    if not np.isfinite(levels).all() or levels.min() < 0:
        raise InputError(f"{path} has levels below zero, or no numbers: a mask or a kernel has none")
    return levels / max(levels.max(), 1.0)
