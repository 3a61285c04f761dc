"""The forms in which a picture is written, and how it is found again."""

import errno
import math
import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from cvsa_jax.npy import load_npy
from cvsa_jax.pictures.levels import to_bytes, to_words
from cvsa_jax.pictures.metadata import sized_exif
from cvsa_jax.pictures.picture import Carried, resized_alpha
from cvsa_jax.pictures.reading import read_picture
from cvsa_jax.types import InputError
from cvsa_jax.writing import whole

QUALITY = 95  # of JPEG, with full resolution of colour; WebP is written without loss
METRE = 0.0254  # of an inch
# What writers have against a picture, each in its own way.
_REFUSED = (ValueError, OverflowError, RuntimeError, struct.error)


class Format(NamedTuple):
    """One form of files.

    suffix: of their names. write: (path, image (H, W, C) in [-1, 1], what it carries). alpha: whether opacity
    has a place. side: the longest side, pixels, or None. exif, dpi: the most bytes, and pixels an inch, that it holds.
    """

    suffix: str
    write: Callable[[pathlib.Path, np.ndarray, Carried], None]
    alpha: bool = True
    side: int | None = None
    exif: float = math.inf
    dpi: float = math.inf


def _with_alpha(colours: np.ndarray, alpha: np.ndarray | None, white: int) -> np.ndarray:
    """(H, W), or (H, W, C) with the opacity last."""
    if alpha is not None:
        opacity = np.round(alpha * white).astype(colours.dtype)
        return np.concatenate([colours, opacity[..., None]], -1)
    return colours[..., 0] if colours.shape[-1] == 1 else colours


def _facts(carried: Carried) -> dict:
    """As Pillow takes them."""
    facts = {"exif": carried.exif, "icc_profile": carried.icc, "dpi": carried.dpi}
    return {name: value for name, value in facts.items() if value is not None}


def _png(path: pathlib.Path, image: np.ndarray, carried: Carried) -> None:
    Image.fromarray(_with_alpha(to_bytes(image), carried.alpha, 255)).save(path, "PNG", **_facts(carried))


def _jpeg(path: pathlib.Path, image: np.ndarray, carried: Carried) -> None:
    pixels = Image.fromarray(_with_alpha(to_bytes(image), None, 255))
    pixels.save(path, "JPEG", quality=QUALITY, subsampling=0, **_facts(carried))


def _webp(path: pathlib.Path, image: np.ndarray, carried: Carried) -> None:
    pixels = Image.fromarray(_with_alpha(to_bytes(image), carried.alpha, 255))
    pixels = pixels.convert("RGB" if carried.alpha is None else "RGBA")
    pixels.save(path, "WEBP", lossless=True, exact=True, **_facts(carried))


def _tiff(path: pathlib.Path, image: np.ndarray, carried: Carried) -> None:
    """With 16 bits of a file that had more than 8, else with 8. Pillow refuses the EXIF of every camera here."""
    deep, tags = carried.depth > 8, []
    levels, white = (to_words(image), 65535) if deep else (to_bytes(image), 255)
    if carried.exif is not None:  # the photograph's own, but not its sub-directories, whose offsets nothing sets right
        exif = Image.Exif()
        exif.load(carried.exif)
        tags = [(tag, "s", 0, text, True) for tag, text in exif.items() if isinstance(text, str)]
    tifffile.imwrite(
        path, _with_alpha(levels, carried.alpha, white), metadata=None, compression="zlib", software=False,
        photometric="minisblack" if image.shape[-1] == 1 else "rgb", extratags=tags, iccprofile=carried.icc,
        extrasamples=None if carried.alpha is None else ["unassalpha"], resolution=carried.dpi,
        resolutionunit=None if carried.dpi is None else "INCH", planarconfig="contig",
    )  # fmt: skip


def _npy(path: pathlib.Path, image: np.ndarray, carried: Carried) -> None:
    with path.open("wb") as file:
        np.save(file, np.asarray(image, np.float32))


def _png16(path: pathlib.Path, image: np.ndarray, carried: Carried) -> None:
    """By the PNG specification: Pillow writes 16 bits of grey alone."""
    height, width, channels = image.shape
    words = _with_alpha(to_words(image), carried.alpha, 65535).astype(">u2").reshape(height, -1)
    lines = words.view(np.uint8).reshape(height, -1)
    # Filter 2, "up": each byte less the one above, modulo 256.
    differences = np.diff(lines, axis=0, prepend=np.zeros((1, lines.shape[1]), np.uint8))
    body = np.concatenate([np.full((height, 1), 2, np.uint8), differences], 1)
    colour = (2 if channels == 3 else 0) + (4 if carried.alpha is not None else 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
        if carried.icc is not None:
            _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(carried.icc))
        if carried.dpi is not None:
            _chunk(file, b"pHYs", struct.pack(">IIB", *(round(n / METRE) for n in carried.dpi), 1))
        if carried.exif is not None:
            _chunk(file, b"eXIf", carried.exif.removeprefix(b"Exif\0\0"))
        _chunk(file, b"IDAT", zlib.compress(body.tobytes(), 6))
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


PNG, PNG16 = "png", "png16"
FORMATS = {
    PNG: Format(".png", _png),
    PNG16: Format(".png", _png16),
    "tiff": Format(".tiff", _tiff),
    "webp": Format(".webp", _webp, side=16383),
    "jpeg": Format(".jpg", _jpeg, alpha=False, side=65500, exif=65533, dpi=65535),  # two bytes for either
    "npy": Format(".npy", _npy, alpha=False),
}
SUFFIXES = tuple(dict.fromkeys(form.suffix for form in FORMATS.values()))


def form_of(name: str | None, carried: Carried) -> Format:
    """The form of that name; without one PNG, with 16 bits where the file had more than 8."""
    return FORMATS[name or (PNG16 if carried.depth > 8 else PNG)]


def check_size(name: str | None, shape: tuple[int, ...]) -> None:
    """Raises InputError if a picture (H, W, C) is larger than files of a form may be."""
    side = form_of(name, Carried()).side
    if side is not None and max(shape[:2]) > side:
        raise InputError(f"--format={name} holds sides up to {side}, but the picture has {shape[0]}x{shape[1]}")


def losses(name: str | None, carried: Carried) -> list[str]:
    """In words, what of a picture its form has no place for."""
    held = _held(form_of(name, carried), carried)
    facts = {"opacity": (carried.alpha, held.alpha), "EXIF": (carried.exif, held.exif)}
    facts["resolution"] = carried.dpi, held.dpi
    lost = [fact for fact, (before, after) in facts.items() if before is not None and after is None]
    return [f"its {fact} is not written: --format={name} has no place for it" for fact in lost]


def _held(form: Format, carried: Carried) -> Carried:
    """What of it files of a form have a place for."""
    return carried._replace(
        alpha=carried.alpha if form.alpha else None,
        exif=carried.exif if len(carried.exif or b"") <= form.exif else None,
        dpi=carried.dpi if carried.dpi is None or max(carried.dpi) <= form.dpi else None,
    )


def write_picture(
    folder: pathlib.Path, name: str, image: np.ndarray, form: str | None = None, carried: Carried | None = None
) -> pathlib.Path:
    """Write (H, W, 1 or 3) in [-1, 1] into a folder, which is made; the file, which appears whole.

    Args:
      folder, name: of the file, without suffix. form: a name of `FORMATS`, or None. carried: what it has of the
        file that it came from; its opacity is brought to the picture's size, what `losses` tells is left out.

    Raises:
      OSError: if it cannot be written; it names the file.
    """
    carried = carried or Carried()
    if carried.alpha is not None:
        carried = carried._replace(alpha=resized_alpha(carried.alpha, image.shape[:2]))
    if carried.exif is not None:
        carried = carried._replace(exif=sized_exif(carried.exif, *image.shape[:2]))
    if image.shape[-1] == 1:
        carried = carried._replace(icc=None)
    chosen = form_of(form, carried)
    path = folder / f"{name}{chosen.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        try:
            chosen.write(part, np.asarray(image), _held(chosen, carried))
        except _REFUSED as error:
            raise OSError(errno.EINVAL, str(error) or type(error).__name__, str(path)) from error
    return path


def find_picture(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file that `write_picture` wrote in any form; the one of a PNG if there is none."""
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.exists()), paths[0])


def read_back(path: pathlib.Path, channels: int | None = None) -> np.ndarray:
    """What `write_picture` wrote, (H, W, C) in [-1, 1]; an array as it is.

    Args:
      path: of the file. channels: the number to have, since WebP has no grey; None for that of the file.

    Raises:
      InputError: if it cannot be read.
    """
    image = load_npy(path) if path.suffix == ".npy" else read_picture(path).pixels
    if channels is None or image.shape[-1] == channels:
        return image
    return np.repeat(image.mean(-1, keepdims=True), channels, -1)
