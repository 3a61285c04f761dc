"""Pictures that state something, masks and kernels: their levels at full depth, which no one looks at."""

import pathlib
from typing import NamedTuple

import numpy as np

from cvsa_jax.pictures import read_picture
from cvsa_jax.types import InputError

# Channels that differ by less are of a grey picture, stored in colour by a lossy program.
ALIKE = 8 / 255


class Levels(NamedTuple):
    """A picture in [0, 1]: grey (H, W); colour (H, W, 3) or None of a grey one; alpha (H, W) or None."""

    grey: np.ndarray
    colour: np.ndarray | None
    alpha: np.ndarray | None


def read_levels(path: str | pathlib.Path) -> Levels:
    """A picture of any kind; numbers that have no stated scale are divided by their largest.

    Raises:
      InputError: if it cannot be read as an image, or has negative levels or NaN.
    """
    picture = read_picture(pathlib.Path(path), relative=True)
    colour = (picture.pixels.astype(np.float64) + 1) / 2
    if not np.isfinite(colour).all() or colour.min() < -1e-6:
        raise InputError(f"{path} has levels below zero, or no numbers: a mask or a kernel has none")
    coloured = np.ptp(colour, axis=-1).max() > ALIKE
    grey = np.maximum((picture.grey().pixels[..., 0].astype(np.float64) + 1) / 2, 0)
    return Levels(grey, colour if coloured else None, picture.alpha)
