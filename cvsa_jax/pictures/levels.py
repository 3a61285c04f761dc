"""The values of a picture: what a file stores, and [-1, 1]."""

import numpy as np
from PIL import Image

from cvsa_jax.types import InputError

EIGHT = 255
# Of a range that is given: how far values may lie beyond it, as those of a noisy measurement do.
EXCESS = 0.25
# Floats in [-1, 1] whose least is above this may as well be [0, 1] with some noise.
CLEARLY_NEGATIVE = -0.25


def to_float(levels: np.ndarray | Image.Image) -> np.ndarray:
    """8-bit levels to float32 in [-1, 1], (H, W) or (H, W, C) to (H, W, C)."""
    array = np.asarray(levels, np.float32) / 127.5 - 1
    return array[..., None] if array.ndim == 2 else array


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[-1, 1] to 8-bit, clipped and rounded: the values are never stretched."""
    return np.round((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)


def to_words(image: np.ndarray) -> np.ndarray:
    """[-1, 1] to 16-bit, clipped and rounded."""
    return np.round((np.clip(image.astype(np.float64), -1, 1) + 1) * 32767.5).astype(np.uint16)


def to_unit(
    stored: np.ndarray, bits: int, value_range: tuple[float, float] | None, relative: bool = False
) -> np.ndarray:
    """The values of a file of more than 8 bits, or of floats, on the scale from black, 0, to white, 1.

    Integers without a sign reach from 0 to 2^bits - 1, those with one to 2^(bits - 1) - 1. Floats in [0, 1] are
    taken as they are, those that reach from clearly below 0 to at most 1 are taken to lie in [-1, 1].

    Args:
      stored: (H, W, C). bits: of a value. value_range: what is black and what is white, if the caller knows.
      relative: whether numbers of which that cannot be said are divided by their largest, if none is negative.

    Raises:
      InputError: if there is no saying which value is white; it names the kind of the values and their range.
    """
    if stored.dtype.kind not in "uif":
        raise InputError(f"it holds {bits}-bit numbers of a kind that no picture has ({stored.dtype})")
    finite = stored[np.isfinite(stored)] if stored.dtype.kind == "f" else stored
    if finite.size == 0:
        raise InputError("it holds no number that is finite")
    least, most = float(finite.min()), float(finite.max())
    name = {"u": "whole numbers", "i": "whole numbers with a sign", "f": "floating-point numbers"}[stored.dtype.kind]
    found = f"it holds {bits}-bit {name} from {least:g} to {most:g}"
    if value_range is not None:
        black, white = value_range
        beyond = EXCESS * (white - black)
        if least < black - beyond or most > white + beyond:
            raise InputError(f"{found}, which is not --range={black:g},{white:g}")
    elif relative and least >= 0:
        full = 1.0 if stored.dtype.kind == "f" else 2.0**bits - 1
        black, white = 0.0, full if full / EIGHT <= most <= full else most or 1.0
    elif stored.dtype.kind == "f":
        black, white = _range_of_floats(least, most, found)
    else:
        black, white = 0.0, 2.0 ** (bits if stored.dtype.kind == "u" else bits - 1) - 1
        # All of it within one level of 8 bits: white must be another value than the largest of the type.
        if least < 0 or 0 < most < white / EIGHT:
            raise InputError(f"{found}, where white would be {white:g}; say what black and white are: --range=LOW,HIGH")
    return ((stored.astype(np.float64) - black) / (white - black)).astype(np.float32)


def _range_of_floats(least: float, most: float, found: str) -> tuple[float, float]:
    if least >= 0 and most <= 1:
        return 0.0, 1.0
    if -1 <= least < CLEARLY_NEGATIVE and most <= 1:
        return -1.0, 1.0
    raise InputError(f"{found}, neither [0, 1] nor [-1, 1]; say what black and white are: --range=LOW,HIGH")
