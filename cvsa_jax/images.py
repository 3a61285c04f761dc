"""Files of images and arrays: reading, writing."""

import pathlib

import numpy as np
from PIL import Image

from cvsa_jax.types import InputError


def open_image(path: pathlib.Path) -> Image.Image:
    """An image file as 8-bit RGB, or grey if it is stored so, turned upright by its EXIF tag.

    Raises:
      InputError: if it cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(0x0112, 1)
            turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
            if orientation in turns:
                image = image.transpose(turns[orientation])
            if image.mode.startswith("I;16"):
                return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path} as an image: {error}") from error


def as_channels(image: Image.Image, channels: int) -> Image.Image:
    """As RGB (3) or grey (1)."""
    return image.convert("RGB" if channels == 3 else "L")


def to_float(image: Image.Image) -> np.ndarray:
    """8-bit pixels to float32 in [-1, 1], shape (H, W, C)."""
    array = np.asarray(image, np.float32) / 127.5 - 1
    return array[..., None] if array.ndim == 2 else array


def read_image(path: pathlib.Path) -> np.ndarray:
    """An image file as (H, W, C) in [-1, 1]; raises as `open_image`."""
    return to_float(open_image(path))


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[-1, 1] to 8-bit, clipped and rounded: the values are never stretched."""
    return np.round((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)


def save_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W, 1) in [-1, 1] as a PNG, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = to_bytes(np.asarray(image))
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, resized to size x size with a Lanczos filter."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))


def read_grey(path: str | pathlib.Path) -> np.ndarray:
    """The grey values of an image file, (H, W), 0 to 255.

    Raises:
      InputError: if it cannot be read as an image.
    """
    return np.asarray(open_image(pathlib.Path(path)).convert("L"))


def read_array(path: str | pathlib.Path) -> np.ndarray:
    """A .npy file of numbers, as they are.

    Raises:
      InputError: if it cannot be read as one.
    """
    try:
        array = np.load(path)
        if not np.issubdtype(array.dtype, np.number):
            raise ValueError(f"it holds {array.dtype}")
        return array
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {path} as an array: {error}") from error
