"""Files of images and arrays: reading, writing."""

import pathlib

import numpy as np
from PIL import Image

from cvsa_jax.pictures import formats, read_picture
from cvsa_jax.pictures.levels import to_bytes, to_float
from cvsa_jax.pictures.picture import centre_square
from cvsa_jax.types import InputError

__all__ = [
    "as_channels", "centre_square", "open_image", "read_grey", "read_image", "reduced", "save_image",
    "to_bytes", "to_float",
]  # fmt: skip


def open_image(path: str | pathlib.Path) -> Image.Image:
    """An image file as 8-bit sRGB, or grey if it is stored so, turned upright by its EXIF tag.

    Raises:
      InputError: if it cannot be read as an image.
    """
    picture = read_picture(pathlib.Path(path))
    if not np.isfinite(picture.levels).all():
        raise InputError(f"cannot read {path} as an image: it holds NaN or infinite numbers")
    return picture.image


def as_channels(image: Image.Image, channels: int) -> Image.Image:
    """As RGB (3) or grey (1)."""
    return image.convert("RGB" if channels == 3 else "L")


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """An image file as (H, W, C) in [-1, 1], at its full depth; raises as `open_image`."""
    return read_picture(pathlib.Path(path)).pixels


def save_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W, 1) in [-1, 1] as a PNG of 8 bits, creating its folder."""
    formats.write_picture(path.parent, path.name.removesuffix(".png"), np.asarray(image), formats.PNG)


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, C) in [-1, 1] of at most that side, with 8 bits if it was larger."""
    if max(image.shape[:2]) <= side:
        return image
    pixels = to_bytes(image)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((side, side))
    return to_float(picture)


def read_grey(path: str | pathlib.Path) -> np.ndarray:
    """The grey values of an image file, (H, W), 0 to 255.

    Raises:
      InputError: if it cannot be read as an image.
    """
    return np.asarray(open_image(pathlib.Path(path)).convert("L"))
