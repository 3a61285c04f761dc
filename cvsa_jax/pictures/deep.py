"""Files of more than 8 bits a value, of which Pillow would give 8 alone: read through it at their full depth."""

import pathlib
import sys
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from cvsa_jax.pictures.metadata import exif_of
from cvsa_jax.types import InputError


class Deep(NamedTuple):
    """What a file stores.

    values: (H, W, C), C of 1, 3 or, of "cmyk", 4. bits: of a value. colour: grey, rgb or cmyk.
    alpha: (H, W) in [0, 1], or None. orientation: the EXIF tag, 0 if it is damaged. notes: what was left out.
    """

    values: np.ndarray
    bits: int
    colour: str
    alpha: np.ndarray | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()


def unit_alpha(values: np.ndarray, bits: int) -> np.ndarray:
    """Stored opacity as numbers from 0 to 1."""
    scale = 1 if values.dtype.kind == "f" else 2**bits - 1
    return np.clip(values.astype(np.float64) / scale, 0, 1).astype(np.float32)


def unassociated(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by the opacity, divided by it."""
    colours = values / np.where(alpha > 0, alpha, 1)[..., None]
    if values.dtype.kind == "f":
        return colours.astype(values.dtype)
    return np.round(np.minimum(colours, np.iinfo(values.dtype).max)).astype(values.dtype)


def read_deep(path: pathlib.Path, image: ImageFile.ImageFile) -> Deep | None:
    """An opened file of any other kind; None if it has at most 8 bits."""
    raw = _rawmode(image)
    if (
        image.format == "PPM"
        and raw in ("RGB", ("RGB", 65535))
        and image.tile
        and isinstance(image.tile[0].args, tuple)
    ):
        maximum = image.tile[0].args[1]
        if image.tile[0].codec_name == "ppm" and maximum > 255:
            return _pixmap(path, image, maximum)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _one_channel(image)
    if image.format == "PNG" and raw.endswith(";16B"):
        return _png(path, image, raw)
    return None


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the decoder lays out the bytes of the file."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _one_channel(image: ImageFile.ImageFile) -> Deep:
    alpha, transparent = None, image.info.get("transparency")
    pnm = image.format == "PPM"  # whose 16 bits Pillow reads as 32, at their own scale
    image.load()
    values = np.asarray(image)
    if image.mode == "I" and pnm:
        values = values.astype(np.uint16)
    if isinstance(transparent, int):
        alpha = (values != transparent).astype(np.float32)
    return Deep(values[..., None], values.dtype.itemsize * 8, "grey", alpha, _orientation(image))


def _orientation(image: ImageFile.ImageFile) -> int:
    """Of a loaded image; Pillow has turned a TIFF itself."""
    exif = exif_of(image)
    return 0 if exif is None else exif.get(0x0112, 1)


def _pixmap(path: pathlib.Path, image: ImageFile.ImageFile, maximum: int) -> Deep:
    count = image.width * image.height * 3
    with path.open("rb") as file:
        file.seek(image.tile[0].offset)
        data = file.read(2 * count)
    if len(data) < 2 * count:
        raise InputError("the file is cut short")
    values = np.frombuffer(data, ">u2").reshape(image.height, image.width, 3)
    values = np.round(np.minimum(values, maximum) * (65535 / maximum)).astype(np.uint16)
    return Deep(values, 16, "rgb")


def _decoded(path: pathlib.Path, rawmode: str) -> np.ndarray:
    """A file with its bytes laid out in another way than Pillow would choose: (H, W, C) of bytes."""
    with Image.open(path) as image:
        tile = image.tile[0]
        args = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
        image.tile = [tile._replace(args=args)]
        image.info.pop("transparency", None)
        image.load()
        return np.asarray(image)


def _words(path: pathlib.Path, rawmode: str) -> np.ndarray:
    """16-bit colours: the high bytes and the low ones, each read as a picture of 8 bits.

    Pillow holds colours with 8 bits alone. It takes the high byte of a pair; told that the file has the other
    order of bytes it takes the low one.
    """
    base, order = rawmode.split(";16")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    high, low = (_decoded(path, f"{base};16{'L' if first == little else 'B'}") for first in (True, False))
    return high.astype(np.uint16) << 8 | low


def _png(path: pathlib.Path, image: ImageFile.ImageFile, rawmode: str) -> Deep:
    transparent, orientation = image.info.get("transparency"), _orientation(image)
    if rawmode == "LA;16B":  # as wide as four channels of 8 bits
        parts = _decoded(path, "RGBA").astype(np.uint16)
        values = parts[..., ::2] << 8 | parts[..., 1::2]
    else:
        values = _words(path, rawmode)
    alpha = unit_alpha(values[..., -1], 16) if values.shape[-1] in (2, 4) else None
    values = values[..., :-1] if alpha is not None else values
    if isinstance(transparent, tuple):
        alpha = (values != np.array(transparent)).any(-1).astype(np.float32)
    return Deep(values, 16, "grey" if values.shape[-1] == 1 else "rgb", alpha, orientation)


def pillow_tiff(path: pathlib.Path, kind: str) -> Deep:
    """A TIFF whose compression tifffile does not undo, by libtiff through Pillow, which turns it upright itself."""
    try:
        with Image.open(path) as image:
            raw, mode = _rawmode(image), image.mode
            if mode in ("I", "F") or mode.startswith("I;16"):
                return _one_channel(image)
    except OSError as error:
        raise InputError(f"it is a {kind} of a kind or compression that is not read ({error})") from error
    base, _, _ = raw.partition(";16")
    if base not in ("RGB", "RGBA", "RGBX", "RGBa", "CMYK") or ";16" not in raw:
        raise InputError(f"it is a {kind} of a compression that is not read; store it without")
    words = _words(path, raw.replace("RGBa", "RGBA"))
    if base == "CMYK":
        return Deep(words, 16, "cmyk")
    alpha = unit_alpha(words[..., 3], 16) if base in ("RGBA", "RGBa") else None
    values = words[..., :3]
    if base == "RGBa" and alpha is not None:
        values = unassociated(values, alpha)
    return Deep(values, 16, "rgb", alpha)
