"""TIFF files, by tifffile: Pillow opens some of them alone, and gives 8 bits of colours."""

import logging
import pathlib

import numpy as np
import tifffile
from PIL import Image

from cvsa_jax.pictures.deep import Deep, pillow_tiff, unassociated, unit_alpha
from cvsa_jax.types import InputError

tifffile.logger().setLevel(logging.CRITICAL)  # what it finds is reported in one line, or not at all
HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = {0: "grey", 1: "grey", 2: "rgb", 5: "cmyk"}  # by PhotometricInterpretation


def is_tiff(path: pathlib.Path) -> bool:
    """Whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in HEADS


def read_tiff(path: pathlib.Path) -> Deep | None:
    """The first page of a TIFF; None if it has at most 8 bits without a sign, which Pillow reads rightly.

    Raises:
      InputError: if it is cut short, too large, or of no colours that can be read.
    """
    try:
        file = tifffile.TiffFile(path)
    except tifffile.TiffFileError:
        return None
    with file:
        page = file.pages.first
        if page.is_reduced:
            raise InputError("its first page is a small copy, as in a camera's raw file: save it as TIFF or PNG")
        if page.sampleformat not in (2, 3) and page.bitspersample <= 8:
            return None
        kind = f"{page.bitspersample}-bit TIFF"
        most = 2 * (Image.MAX_IMAGE_PIXELS or np.inf)
        if page.imagewidth * page.imagelength > most:
            raise InputError(f"it says that it has {page.imagewidth}x{page.imagelength} pixels, more than {most:g}")
        size = file.filehandle.size
        if any(o + n > size or not n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise InputError("the file is cut short: pixels that it names are not there")
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in _COLOURS:
            raise InputError(f"it is a {kind} of axes {page.axes} and colours {page.photometric}, not grey or RGB")
        tag = page.tags.get(274)
        orientation = 1 if tag is None else int(tag.value)
        if not _decodable(page):
            found = pillow_tiff(path, kind)
            return found._replace(values=_upward(found.values, page))
        values = page.asarray()
        values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
        values = values[..., None] if values.ndim == 2 else values
        split = _split(values, page, kind)
        return split._replace(values=_upward(split.values, page), orientation=orientation)


def _upward(values: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Black as the least value: some files store white as 0."""
    if page.photometric != 0 or values.dtype.kind == "f":
        return values
    return (2**page.bitspersample - 1 - values.astype(np.int64)).astype(values.dtype)


def _decodable(page: tifffile.TiffPage) -> bool:
    """Whether tifffile alone undoes the compression; LZW, JPEG and some others need more."""
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        if page.predictor != 1:
            tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError:
        return False
    return True


def _split(values: np.ndarray, page: tifffile.TiffPage, kind: str) -> Deep:
    """Colours, opacity, and what has no stated meaning."""
    colour, notes = _COLOURS[page.photometric], []
    count, extra = values.shape[-1], tuple(page.extrasamples)
    if colour == "grey" and count in (3, 4) and 1 not in extra and 2 not in extra:
        colour, extra = "rgb", extra[2:]  # as programs that know arrays alone write them
        notes.append("its channels of no stated colour are taken as red, green and blue")
    needed = {"grey": 1, "rgb": 3, "cmyk": 4}[colour]
    if count < needed:
        raise InputError(f"it is a {kind} with {count} channels for colours that need {needed}")
    alpha, kept = None, values[..., :needed]
    for number, meaning in enumerate(extra[: count - needed]):
        if meaning in (1, 2) and alpha is None:
            alpha = unit_alpha(values[..., needed + number], page.bitspersample)
            if meaning == 1:
                kept = unassociated(kept, alpha)
    left = count - needed - (alpha is not None)
    if left:
        notes.append(f"{left} of its channels, of no stated meaning, left out")
    return Deep(kept, page.bitspersample, colour, alpha, notes=tuple(notes))
