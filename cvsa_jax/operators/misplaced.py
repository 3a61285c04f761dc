"""A mask that does not lie on the hole of the photograph it came with."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage, signal

from cvsa_jax.operators.painted import EXACT, LOSSY, commonest


class Fit(NamedTuple):
    """When a mask lies on what is flat. near: how near a pixel is to the colour. share: of both together, what a moved
    mask must have in common with it. better: by how much more than the mask as it is."""

    near: float
    share: float
    better: float


# Of a lossless file; of one whose losses blur the edge of the paint.
FITS = Fit(EXACT, 0.97, 0.03), Fit(LOSSY, 0.85, 0.15)


def misplaced(hole: np.ndarray, picture: np.ndarray) -> str:
    """How a mask would have to be moved to lie on what is painted in one colour; empty if it lies there, or none does.

    With A the hole and B where the picture has the colour, both of about one size, the mask would fit where

        |A' and B| / |A' or B| >= share

    for A' the hole turned, mirrored or shifted; not inverted, which is right where an object on a plain ground is to
    go. The colour is the commonest in the hole, or else outside it. A picture that nothing is painted on seldom has a
    flat patch of the mask's very shape.

    Args:
      hole: (H, W) booleans, what is missing. picture: (H, W, 3) in [0, 1].
    """
    if hole.shape != picture.shape[:2] or hole.all() or not hole.any():
        return ""
    for part in (picture[hole], picture[~hole]):
        away = np.abs(picture - commonest(part)).max(-1)
        for fit in FITS:
            flat = away <= fit.near
            now = _share(hole, flat)
            if now >= fit.share:
                return ""
            for how, moved in _moves(hole, flat):
                if moved.shape == flat.shape and _share(moved, flat) >= max(fit.share, now + fit.better):
                    return how
    return ""


def _moves(hole: np.ndarray, flat: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What may have happened to a mask, in words, and the hole without it."""
    yield from {
        "upside down": hole[::-1], "mirrored": hole[:, ::-1], "turned by half": hole[::-1, ::-1],
        "transposed": hole.T, "turned left": np.rot90(hole), "turned right": np.rot90(hole, -1),
    }.items()  # fmt: skip
    down, right = _shift(hole, flat)
    steps = ((down, "down", "up"), (right, "to the right", "to the left"))
    words = [f"{abs(n)} pixel{'s' * (abs(n) > 1)} {ahead if n > 0 else back}" for n, ahead, back in steps if n]
    if words:
        yield f"shifted by {' and '.join(words)}", ndimage.shift(hole, (down, right), order=0)


def _share(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _shift(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """(down, right) by which `a` has most in common with `b`; none if one is much larger."""
    if not 0.8 * a.sum() <= b.sum() <= 1.25 * a.sum():
        return 0, 0
    common = signal.correlate(b.astype(np.float32), a.astype(np.float32), method="fft")
    down, right = np.unravel_index(common.argmax(), common.shape)
    return int(down) - a.shape[0] + 1, int(right) - a.shape[1] + 1
