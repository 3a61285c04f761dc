"""Mask files: what is missing, read from whatever it was painted with."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cvsa_jax.operators import array_files
from cvsa_jax.operators.painted import painted_over, strokes
from cvsa_jax.operators.paired_files import PairedFiles
from cvsa_jax.operators.picture_files import Levels, read_levels
from cvsa_jax.types import InputError

MEANS = AUTO, WHITE, BLACK, ALPHA, PAINTED = "auto", "white", "black", "alpha", "painted"
# Levels nearer than this to an end are the end (what a lossy file adds); farther, in a soft mask.
NEAR_END, SOFT_END = 1 / 8, 8 / 255
# A grey pixel that has both ends this near is the smooth edge of a stroke.
EDGE = 2
# More greys than this share of the pixels, edges aside, make a mask soft.
WIDE = 1 / 200
# White surrounds black where it has this share of the border, and half of the picture.
SURROUNDS = 0.9
# Pixels lost at random differ from a neighbour as often as if each were drawn alone; strokes at most half as often.
SCATTERED = 0.75
# A colour is flat where this share of the pixels is this near to it.
FLAT_SHARE, FLAT = 0.98, 8 / 255

Photograph = Callable[[], np.ndarray | None]


class MaskPicture(NamedTuple):
    """A mask file as it was read. What of it is missing may depend on the photograph: `recognise`.

    path: of the file. levels: in [0, 1]. array: whether it is no picture but an array, where 1 is missing.
    """

    path: str
    levels: Levels
    array: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.levels.grey.shape
        return height, width

    def refuse(self, why: str) -> InputError:
        """The error that names the file and its size."""
        return InputError(f"the mask {self.path} of {self.size[0]}x{self.size[1]} pixels {why}")


class Hole(NamedTuple):
    """What is missing. share: (H, W), from 0, measured, to 1, missing. remark: how it was found, if not as usual."""

    share: np.ndarray
    remark: str = ""


def read_mask(path: str) -> MaskPicture | PairedFiles:
    """A mask file, or those of a folder, a file for each image: a picture of any kind, a .npy or a .mat matrix.

    Raises:
      InputError: if it cannot be read.
    """
    return PairedFiles(path, "mask", read_one, array_files.BESIDE) if pathlib.Path(path).is_dir() else read_one(path)


def read_one(path: str) -> MaskPicture:
    """One mask file; raises InputError as `read_mask`."""
    if not array_files.is_array(path):
        return MaskPicture(path, read_levels(path))
    array = array_files.read_matrix(path, "mask")
    if array.min() < 0 or array.max() > 255:
        span = f"they are from {array.min():g} to {array.max():g}"
        raise InputError(f"the numbers of the mask {path} must be from 0, measured, to 1 or 255, missing; {span}")
    return MaskPicture(path, Levels(array / (255 if array.max() > 1 else 1), None, None), True)


def recognise(mask: MaskPicture, means: str, photograph: Photograph, measured: bool) -> Hole:
    """What of a mask is missing.

    'white', 'black': that is missing; where something is transparent, nothing is. 'alpha': what is transparent.
    'painted': where a flat colour was painted over a copy of the photograph. 'auto' is the first of these that holds:

    1. Some of it is transparent. If what is not is one flat colour, and it surrounds nothing, it is a layer of
       strokes, and they are missing; else what is transparent is.
    2. It has two levels, however far apart. White is missing; but black is where white surrounds it
       (nine tenths of the border, more than half of the picture) and the pixels are not scattered at random.
    3. It is a copy of the photograph with a flat colour painted over the hole.
    4. It has grey levels, from black to white: as 2. Greys wider than an edge of two pixels are kept, as shares.
    5. It has strokes of one colour on a grey ground: the strokes are missing.

    Args:
      means: one of MEANS. photograph: gives the image of the mask, (H, W, 3) in [0, 1], or None where there is none.
      measured: whether the photograph itself has the hole.

    Raises:
      InputError: if no rule holds, or two that differ do: with the flag that tells.
    """
    levels = mask.levels
    if means == ALPHA:
        if levels.alpha is None:
            raise mask.refuse("has nothing transparent, which --mask_means=alpha asks for")
        return Hole(_shares(1 - levels.alpha))
    if means in (WHITE, BLACK):
        white = _stretched(_on(levels, 0.0 if means == WHITE else 1.0))
        return Hole(_shares(white if means == WHITE else 1 - white))
    if means == AUTO and levels.alpha is not None and (np.ptp(levels.alpha) > NEAR_END or levels.alpha.max() < 0.5):
        return _transparent(mask, levels.alpha)
    grey = _stretched(levels.grey)
    if grey.min() == grey.max() and NEAR_END < grey.min() < 1 - NEAR_END:
        raise mask.refuse("is the same grey everywhere, which says nothing of what is missing")
    if means == AUTO and levels.colour is None and (grey.min() == grey.max() or _two_levels(grey)):
        return _black_and_white(mask, grey, photograph, measured)
    painted = None if mask.array else painted_over(mask.path, photograph())
    if painted is not None:
        if not painted.any():
            raise mask.refuse("is the photograph itself: nothing is painted over it in one flat colour that it has not")
        return Hole(painted.astype(np.float64), f"the mask {mask.path} is the photograph, painted over")
    if means == PAINTED:
        raise mask.refuse("is no copy of the photograph with a flat colour painted over the hole")
    if levels.colour is None and grey.min() < 0.25 and grey.max() > 0.75:
        return _black_and_white(mask, grey, photograph, measured)
    if levels.colour is not None and (found := strokes(levels.colour)) is not None:
        return Hole(found.astype(np.float64), f"the mask {mask.path}: what is coloured is missing")
    raise mask.refuse(
        f"is neither black and white, nor transparent, nor a copy of the photograph with a flat colour painted over "
        f"the hole; paint what is missing white on black, or give --mask_means={WHITE} or {BLACK}"
    )


def _on(levels: Levels, ground: float) -> np.ndarray:
    """The grey levels, where transparent the ground's."""
    return levels.grey if levels.alpha is None else levels.alpha * levels.grey + (1 - levels.alpha) * ground


def _two_levels(grey: np.ndarray) -> bool:
    low, high = grey.min(), grey.max()
    return bool(high > low and ((grey == low) | (grey == high)).all())


def _stretched(grey: np.ndarray) -> np.ndarray:
    """Two levels, as 0 and 1 of 255, become black and white; others stay."""
    return (grey == grey.max()).astype(np.float64) if _two_levels(grey) else grey


def _shares(level: np.ndarray) -> np.ndarray:
    """Shares of what is missing: hard at half unless greys are wider than an edge."""
    near = 2 * EDGE + 1
    grey = (level > NEAR_END) & (level < 1 - NEAR_END)
    edge = (ndimage.maximum_filter(level, near) >= 1 - NEAR_END) & (ndimage.minimum_filter(level, near) <= NEAR_END)
    if (grey & ~edge).mean() <= WIDE:
        return (level >= 0.5).astype(np.float64)
    return np.where(level < SOFT_END, 0.0, np.where(level > 1 - SOFT_END, 1.0, level))


def _border(a: np.ndarray) -> float:
    return float(np.concatenate([a[0], a[-1], a[1:-1, 0], a[1:-1, -1]]).mean())


def _flat(colours: np.ndarray) -> bool:
    """Whether (N, C) colours are one."""
    away = np.abs(colours - np.median(colours, axis=0)).max(-1)
    return bool((away <= FLAT).mean() >= FLAT_SHARE)


def _transparent(mask: MaskPicture, alpha: np.ndarray) -> Hole:
    """Rule 1; strokes that are see-through themselves are as good as opaque ones."""
    alpha = _stretched(alpha) if alpha.min() > SOFT_END else alpha / max(alpha.max(), SOFT_END)
    clear, colour = alpha < 0.5, mask.levels.colour
    shown = np.repeat(mask.levels.grey[..., None], 3, -1) if colour is None else colour
    border = _border(clear)
    if not clear.all() and clear.any() and _flat(shown[~clear]) and border > 1 - SURROUNDS:
        if border < SURROUNDS:
            raise mask.refuse(
                f"is of one colour and transparent: give --mask_means={ALPHA} if what is transparent is missing, or "
                "paint what is missing white on black"
            )
        return Hole(_shares(alpha), f"the mask {mask.path}: its strokes are missing, what is transparent is measured")
    return Hole(_shares(1 - alpha), f"the mask {mask.path}: what is transparent is missing")


def _black_and_white(mask: MaskPicture, grey: np.ndarray, photograph: Photograph, measured: bool) -> Hole:
    """Rule 2."""
    white = grey >= 0.5
    if white.mean() <= 0.5 or white.all() or _border(white) < SURROUNDS or _scattered(white):
        return Hole(_shares(grey))
    if mask.array:
        remark = f"{white.mean():.0%} of it is missing; if 1 means measured, give --mask_means={BLACK}"
        return Hole(_shares(grey), f"the mask {mask.path}: {remark}")
    seen = photograph() if measured else None
    if seen is not None and seen.shape[:2] == white.shape and _flat(seen[white]) and not _flat(seen[~white]):
        raise mask.refuse(
            f"is white at its border, and so is black on white; but the photograph is flat where it is white: "
            f"give --mask_means={WHITE} or {BLACK}, which is missing"
        )
    remark = f"black is missing, as white surrounds it; if white is, give --mask_means={WHITE}"
    return Hole(_shares(1 - grey), f"the mask {mask.path}: {remark}")


def _scattered(white: np.ndarray) -> bool:
    share = white.mean()
    differing = (white[1:] != white[:-1]).mean() + (white[:, 1:] != white[:, :-1]).mean()
    return bool(differing / 2 >= SCATTERED * 2 * share * (1 - share))
