"""A mask that does not lie on the hole of the photograph it came with."""

import numpy as np
from scipy import fft

from cvsa_jax.operators.painted import EXACT, commonest

# What a moved mask must share with the flat colour, of both together, and by how much more than the mask as it is.
FITS, BETTER = 0.97, 0.03


def misplaced(hole: np.ndarray, picture: np.ndarray) -> str:
    """How a mask would have to be moved to lie on what is painted in one colour; empty if it lies there, or none does.

    With A the hole and B where the picture has the colour, both of about one size, the mask would fit where

        |A' and B| / |A' or B| >= FITS

    for A' the hole turned, mirrored, inverted or shifted. The colour is the commonest in the hole, or else outside it.
    A picture that nothing is painted on seldom has a flat patch of the mask's very shape.

    Args:
      hole: (H, W) booleans, what is missing. picture: (H, W, 3) in [0, 1].
    """
    if hole.shape != picture.shape[:2] or hole.all() or not hole.any():
        return ""
    for part in (picture[hole], picture[~hole]):
        flat = np.abs(picture - commonest(part)).max(-1) <= EXACT
        now = _share(hole, flat)
        if now >= FITS:
            return ""
        moved = {
            "upside down": hole[::-1], "mirrored": hole[:, ::-1], "turned by half": hole[::-1, ::-1],
            "inverted": ~hole, "transposed": hole.T, "turned left": np.rot90(hole), "turned right": np.rot90(hole, -1),
        }  # fmt: skip
        for how, other in moved.items():
            if _fits(other, flat, now):
                return how
        down, right = _shift(hole, flat)
        if (down or right) and _fits(_shifted(hole, down, right), flat, now):
            steps = ((down, "down", "up"), (right, "to the right", "to the left"))
            return "shifted by " + " and ".join(
                f"{abs(n)} pixel{'s' * (abs(n) > 1)} {ahead if n > 0 else back}" for n, ahead, back in steps if n
            )
    return ""


def _share(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _fits(moved: np.ndarray, flat: np.ndarray, now: float) -> bool:
    return moved.shape == flat.shape and (share := _share(moved, flat)) >= FITS and share >= now + BETTER


def _shift(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """(down, right) by which `a` has most in common with `b`; none if one is much larger."""
    if not 0.8 * a.sum() <= b.sum() <= 1.25 * a.sum():
        return 0, 0
    shape = [fft.next_fast_len(2 * n, real=True) for n in a.shape]
    common = fft.irfft2(fft.rfft2(b.astype(np.float32), shape) * fft.rfft2(a.astype(np.float32), shape).conj(), shape)
    places = np.unravel_index(common.argmax(), common.shape)
    down, right = (int(p - n) if 2 * p > n else int(p) for p, n in zip(places, common.shape, strict=True))
    return down, right


def _shifted(a: np.ndarray, down: int, right: int) -> np.ndarray:
    moved = np.zeros_like(a)
    rows, columns = a.shape
    from_rows, from_columns = slice(max(-down, 0), rows - max(down, 0)), slice(max(-right, 0), columns - max(right, 0))
    to_rows, to_columns = slice(max(down, 0), rows - max(-down, 0)), slice(max(right, 0), columns - max(-right, 0))
    moved[to_rows, to_columns] = a[from_rows, from_columns]
    return moved
