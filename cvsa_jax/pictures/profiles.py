"""Colours of an ICC profile turned into sRGB."""

import functools
import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

# A profile whose colours differ from sRGB by no more than this many levels of 255 is one of sRGB.
SAME = 2
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_BROKEN = (OSError, ValueError, TypeError, struct.error, ImageCms.PyCMSError)
_GRID = 65536


class BadProfileError(ValueError):
    """A profile that cannot be used; says why."""


class Shaper(NamedTuple):
    """Curves, then a matrix. curves: the tags of one channel or three. matrix: (3, 3) to XYZ, or None of grey."""

    curves: list[bytes]
    matrix: np.ndarray | None


@functools.cache
def srgb() -> bytes:
    """The profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@functools.lru_cache(maxsize=8)
def _conversion(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform, str]:
    """(transformation to sRGB, the mode that it takes); grey pictures may have a profile of colours.

    Raises:
      BadProfileError: if there is none.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = str(getattr(opened.profile, "xcolor_space", "")).strip()
        taken = "RGB" if (mode, space) == ("L", "RGB") else mode
        if space != _SPACES[taken]:
            raise BadProfileError(f"its ICC profile is one of {space}, its pixels are {_SPACES[mode]}")
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(opened, target, taken, "RGB", ImageCms.Intent.PERCEPTUAL), taken
    except BadProfileError:
        raise
    except _BROKEN as error:
        raise BadProfileError(f"its ICC profile is broken ({error})") from error


@functools.lru_cache(maxsize=8)
def is_srgb(profile: bytes, mode: str) -> bool:
    """Whether a profile leaves the colours of a mode, L or RGB, as they are; raises BadProfileError."""
    if mode == "L":
        return np.abs(_greys(profile) - np.arange(256)).max() <= SAME
    conversion, _ = _conversion(profile, mode)
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 18, 3)
    found = ImageCms.applyTransform(Image.fromarray(colours), conversion)
    return found is not None and np.abs(np.asarray(found, int) - colours).max() <= SAME


def convert(image: Image.Image, profile: bytes) -> Image.Image:
    """An L, RGB or CMYK image in sRGB, L or RGB; the same object if it is there already.

    Raises:
      BadProfileError: if the profile cannot be used.
    """
    if image.mode != "CMYK" and is_srgb(profile, image.mode):
        return image
    conversion, _ = _conversion(profile, image.mode)
    if image.mode == "L":
        return image.point(_greys(profile).round().astype(int).tolist())
    found = ImageCms.applyTransform(image, conversion)
    assert found is not None  # it works on a copy
    return found


def _greys(profile: bytes) -> np.ndarray:
    """What each of 256 levels of grey becomes: ImageCms alone is up to ten levels off in the shadows of grey."""
    conversion, taken = _conversion(profile, "L")
    source = _shaper(profile)
    if source is not None:
        return 255 * _shaped(np.linspace(0, 1, 256)[:, None], source)[:, 0]
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    found = ImageCms.applyTransform(ramp.convert(taken), conversion)
    assert found is not None
    return np.asarray(found, np.float64)[0].mean(-1)


def convert_deep(values: np.ndarray, profile: bytes) -> tuple[np.ndarray, str]:
    """Grey or RGB values from 0 to 1, (H, W, C), in sRGB at their own depth, and a note where that cannot be.

    ImageCms works with 8 bits; so profiles that are curves and a matrix, as nearly all of RGB are, are evaluated here.

    Raises:
      BadProfileError: if the profile cannot be used.
    """
    mode = "L" if values.shape[-1] == 1 else "RGB"
    if is_srgb(profile, mode):
        return values, ""
    source = _shaper(profile)
    if source is None:
        levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
        flat = convert(Image.fromarray(levels[..., 0] if mode == "L" else levels), profile)
        found = np.asarray(flat, np.float32) / 255
        return (found[..., None] if found.ndim == 2 else found), "its ICC profile is a table: converted with 8 bits"
    return _shaped(values, source).astype(np.float32), ""


def _shaped(values: np.ndarray, source: Shaper) -> np.ndarray:
    """Values from 0 to 1, (..., 1) or (..., 3), in sRGB: curves to light, a matrix, the curve of sRGB backwards."""
    target, grid = _shaper(srgb()), np.linspace(0, 1, _GRID)
    assert target is not None
    channels = np.moveaxis(np.clip(values, 0, 1), -1, 0)
    light = [np.interp(c, grid, _curve(t, grid)) for c, t in zip(channels, source.curves, strict=False)]
    light = np.stack(light, -1)
    if len(channels) == 3 and source.matrix is not None and target.matrix is not None:
        light = light @ np.linalg.solve(target.matrix, source.matrix).T
    return np.interp(light, _curve(target.curves[0], grid), grid)


@functools.lru_cache(maxsize=8)
def _shaper(profile: bytes) -> Shaper | None:
    """The curves and the matrix of a profile; None if it is a table.

    Raises:
      BadProfileError: if it is cut short.
    """
    try:
        count = struct.unpack(">I", profile[128:132])[0]
        entries = [struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i]) for i in range(count)]
        tags = {name: profile[start : start + length] for name, start, length in entries}
        if b"A2B0" in tags:
            return None
        if b"kTRC" in tags:
            return Shaper([tags[b"kTRC"]], None)
        if any(c + part not in tags for c in (b"r", b"g", b"b") for part in (b"XYZ", b"TRC")):
            return None
        columns = [np.frombuffer(tags[c + b"XYZ"][8:20], ">i4") / 65536 for c in (b"r", b"g", b"b")]
        curves = [tags[c + b"TRC"] for c in (b"r", b"g", b"b")]
        for curve in curves:
            _curve(curve, np.zeros(1))
        return Shaper(curves, np.stack(columns, -1))
    except (*_BROKEN, IndexError) as error:
        raise BadProfileError(f"its ICC profile is broken ({error})") from error


def _curve(tag: bytes, x: np.ndarray) -> np.ndarray:
    """A tone curve of ICC.1, section 10.6 or 10.18, at values from 0 to 1."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack(">I", tag[8:12])
        if count == 0:
            return x
        points = np.frombuffer(tag[12 : 12 + 2 * count], ">u2")
        if count == 1:
            return x ** (points[0] / 256)
        return np.interp(x, np.linspace(0, 1, count), points / 65535)
    if tag[:4] != b"para":
        raise ValueError(f"a tone curve of type {tag[:4]!r}")
    (kind,) = struct.unpack(">H", tag[8:10])
    g, *rest = np.frombuffer(tag[12 : 12 + 4 * (1, 3, 4, 5, 7)[kind]], ">i4") / 65536
    a, b, c, d, e, f = [
        lambda: (1.0, 0.0, 0.0, -1.0, 0.0, 0.0),
        lambda: (*rest, 0.0, -rest[1] / rest[0], 0.0, 0.0),
        lambda: (rest[0], rest[1], 0.0, -rest[1] / rest[0], rest[2], rest[2]),
        lambda: (*rest, 0.0, 0.0),
        lambda: tuple(rest),
    ][kind]()
    return np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)
