"""The one way by which files of pictures come in."""

import contextlib
import functools
import pathlib
import struct
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps
from scipy import ndimage

from cvsa_jax.pictures import deep, profiles, tiffs
from cvsa_jax.pictures.levels import to_unit
from cvsa_jax.pictures.metadata import clean_exif, exif_of, resolution
from cvsa_jax.pictures.picture import Carried, Picture
from cvsa_jax.types import InputError

# What Pillow says beside its errors is of no use to people, and it is said in several lines.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Of the same picture turned, by the EXIF tag: (exchange the axes first, turn rows round, turn columns round).
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
_GREY = ("1", "L", "LA", "La")
Scale = Callable[[np.ndarray, int], np.ndarray]  # (stored values, bits) -> from black, 0, to white, 1


def read_picture(path: pathlib.Path, value_range: tuple[float, float] | None = None, relative: bool = False) -> Picture:
    """A file in sRGB or grey, turned upright, at its full depth.

    Colours of an ICC profile are converted, those below no opacity at all are filled from beside them. Of a file
    of several pages the first is taken.

    Args:
      path: of the file. value_range: what is black and what is white in a file of floats or of more than 8 bits.
      relative: as of `levels.to_unit`.

    Raises:
      InputError: in one line, if it is damaged, or of a kind or of values that have no reading.
    """
    path = pathlib.Path(path)
    scale = functools.partial(to_unit, value_range=value_range, relative=relative)
    with _reported(path):
        stored = tiffs.read_tiff(path) if tiffs.is_tiff(path) else None
        if stored is not None:
            return _of_tiff(path, stored, scale)
        with Image.open(path) as image:
            if image.format == "PNG":
                _verify(path)
            notes = _pages(image)
            icc, dpi = image.info.get("icc_profile"), resolution(image.info)
            stored = deep.read_deep(path, image)
            said = exif_of(image)
            exif = None if said is None else clean_exif(said)
            if said is None or (stored is not None and stored.orientation == 0):  # Pillow raises once alone
                notes.append("its EXIF is damaged: it is taken to be upright")
            if stored is not None:
                return _picture(stored, scale, Carried(stored.bits, None, exif, icc, dpi), notes)
            if value_range not in (None, (0.0, 255.0)):
                notes.append("--range is of floats and of more than 8 bits a value: its levels are taken from 0 to 255")
            return _flat(image, Carried(8, None, exif, icc, dpi), notes)


@contextlib.contextmanager
def _reported(path: pathlib.Path) -> Iterator[None]:
    """Whatever a damaged file makes the libraries raise, in one line."""
    try:
        yield
    except InputError as error:
        raise InputError(f"cannot read {path} as an image: {error}") from error
    except Image.UnidentifiedImageError as error:
        why = "it is of no kind that is known here" if path.stat().st_size else "the file is empty"
        with path.open("rb") as file:
            if file.read(12)[4:] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
                why = "it is HEIC, which is not read here; convert it to PNG or JPEG"
        raise InputError(f"cannot read {path} as an image: {why}") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read {path} as an image: {why}") from error


def _verify(path: pathlib.Path) -> None:
    """Check the sums of a PNG, which Pillow does not on reading: a changed byte would be a wrong pixel."""
    with Image.open(path) as image:
        image.verify()


def _pages(image: Image.Image) -> list[str]:
    count = getattr(image, "n_frames", 1)
    return [f"only the first of its {count} pages is taken"] if count > 1 else []


def _of_tiff(path: pathlib.Path, stored: deep.Deep, scale: Scale) -> Picture:
    """What else a TIFF holds: Pillow does not open all that tifffile reads."""
    exif = Image.Exif()
    with path.open("rb") as file, tifffile.TiffFile(path) as opened:
        with contextlib.suppress(SyntaxError, ValueError, KeyError, OSError, struct.error):  # a TIFF of 64 bits
            exif.load_from_fp(file)
        page, count = opened.pages.first, len(opened.pages)
        profile = page.tags.valueof(34675)
        unit = {2: 1.0, 3: 2.54}.get(int(page.tags.valueof(296, default=2)))
        sides = [page.tags.valueof(tag) for tag in (282, 283)]
        dpi = [s[0] / s[1] * unit if unit and s and s[1] else 0.0 for s in sides]
        carried = Carried(
            stored.bits, None, clean_exif(exif), bytes(profile) if profile else None, resolution({"dpi": dpi})
        )
    notes = [f"only the first of its {count} pages is taken"] if count > 1 else []
    return _picture(stored, scale, carried, notes)


def _picture(stored: deep.Deep, scale: Scale, carried: Carried, notes: list[str]) -> Picture:
    """Of more than 8 bits."""
    notes = [*notes, *stored.notes]
    if stored.colour == "cmyk":
        if stored.values.dtype != np.uint16:
            raise InputError(f"it is CMYK of {stored.bits} bits; 8 or 16 are read")
        flat = Image.fromarray(np.round(stored.values / 257).astype(np.uint8), "CMYK")
        notes.append("its CMYK is converted with 8 bits")
        image, carried = _colours(flat, carried._replace(depth=8), notes)
        levels = upright(np.asarray(image), stored.orientation)
        alpha = None if stored.alpha is None else upright(stored.alpha, stored.orientation)
        return _finished(levels, alpha, carried, notes)
    values = scale(stored.values, stored.bits)
    if carried.icc is not None:
        try:
            values, note = profiles.convert_deep(values, carried.icc)
            notes += [note] if note else []
        except profiles.BadProfileError as error:
            notes.append(f"{error}: taken as sRGB")
    alpha = None if stored.alpha is None else upright(stored.alpha, stored.orientation)
    return _finished(upright(2 * values - 1, stored.orientation), alpha, carried, notes)


def _flat(image: Image.Image, carried: Carried, notes: list[str]) -> Picture:
    """Of at most 8 bits."""
    image.load()
    if exif_of(image) is not None:
        image = ImageOps.exif_transpose(image)
    alpha = None
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.float32) / 255
    colours, carried = _colours(image, carried, notes)
    return _finished(np.asarray(colours), alpha, carried, notes)


def _colours(image: Image.Image, carried: Carried, notes: list[str]) -> tuple[Image.Image, Carried]:
    """L or RGB, in sRGB."""
    if image.mode == "LAB":
        target = ImageCms.createProfile("sRGB")
        made = ImageCms.buildTransform(ImageCms.createProfile("LAB"), target, "LAB", "RGB")
        found = ImageCms.applyTransform(image, made)
        assert found is not None
        return found, carried
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    direct = image if image.mode == "CMYK" else image.convert("L" if image.mode in _GREY else "RGB")
    if carried.icc is not None:
        try:
            direct = profiles.convert(direct, carried.icc)
        except profiles.BadProfileError as error:
            notes.append(f"{error}: taken as sRGB")
    return (direct.convert("RGB") if direct.mode == "CMYK" else direct), carried


def _finished(levels: np.ndarray, alpha: np.ndarray | None, carried: Carried, notes: list[str]) -> Picture:
    levels = levels[..., None] if levels.ndim == 2 else levels
    coloured = carried.icc is not None and levels.shape[-1] == 3  # a profile of colours is of no use to grey
    if alpha is not None and (alpha == 1).all():
        alpha = None
    if alpha is not None:
        if not alpha.any():
            notes.append("all of it is transparent")
        levels = filled(levels, alpha)
    carried = carried._replace(alpha=alpha, icc=profiles.srgb() if coloured else None)
    return Picture(np.ascontiguousarray(levels), carried, tuple(notes))


def filled(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Pixels of no opacity have the colour of the nearest one that is seen: nobody chose what is below them.

    Args:
      levels: (H, W, C). alpha: (H, W) in [0, 1].
    """
    hidden = alpha == 0
    if hidden.all() or not hidden.any():
        return levels
    rows, columns = np.asarray(ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True))
    return levels[rows, columns]


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W) or (H, W, C) of a file turned as its EXIF tag says."""
    exchange, rows, columns = _TURNS.get(orientation, (0, 0, 0))
    array = np.swapaxes(array, 0, 1) if exchange else array
    return array[:: -1 if rows else 1, :: -1 if columns else 1]
