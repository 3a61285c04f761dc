"""Holes that were painted in a colour: over a copy of the photograph, or as strokes on a grey ground."""

import pathlib

import numpy as np
from scipy import ndimage

from cvsa_jax import images

# A copy differs from the photograph by less where nothing is painted, also after a lossy program.
COPY = 12 / 255
# The least share of a copy that is not painted over, and how far apart its levels must be to tell it from a ground.
LEFT, TEXTURE = 0.05, 32 / 255
# How near a painted pixel is to the colour, in a file without losses and in one with.
EXACT, LOSSY = 10 / 255, 40 / 255
# Paint changes a pixel by more than this many times what a lossy program typically does.
LOSSES = 10
# A brush's smooth edge, in pixels.
EDGE = 2
# Channels that differ by more are of a colour, by less of a grey ground.
COLOURED, GREY = 64 / 255, 16 / 255


def photograph(path: str | pathlib.Path) -> np.ndarray:
    """The pixels of an image file, (H, W, 3) in [0, 1]; raises InputError if it cannot be read."""
    return np.asarray(images.open_image(pathlib.Path(path)).convert("RGB"), np.float64) / 255


def painted_over(path: str, image: np.ndarray | None) -> np.ndarray | None:
    """Where a picture differs from a photograph by a flat colour; None if it is no copy of it.

    A copy is as the photograph at a twentieth of its pixels or more, where these are not themselves flat. The
    colour is the commonest of those that changed. With it go changed pixels next to it: the edge of the brush.

    Args:
      path: of the picture. image: (H, W, 3) in [0, 1].

    Returns:
      (H, W) booleans, all false if the picture is a copy over which no flat colour was painted.
    """
    if image is None:
        return None
    copy = photograph(path)
    if copy.shape != image.shape:
        return None
    difference = np.abs(copy - image).max(-1)
    left = difference <= COPY
    if left.mean() < LEFT or np.ptp(np.percentile(image[left], (2, 98))) < TEXTURE:
        return None
    typical = float(np.median(difference[left]))
    changed = difference > max(1.5 / 255, 4 * typical)
    if not changed.any():
        return changed
    colour = commonest(copy[changed])
    core = changed & (np.abs(copy - colour).max(-1) <= (EXACT if typical == 0 else LOSSY))
    nothing = np.zeros_like(changed) if left.mean() > 0.5 else None
    if not core.any():
        return nothing
    outside = np.logical_not(ndimage.binary_dilation(core, np.ones((3, 3), bool), EDGE))
    if outside.any() and np.median(difference[outside]) > 2 * COPY:  # what is alike is so by chance
        return nothing
    strength = float(np.median(difference[core]))
    # Half of what changed at least half as much must be paint, and paint change more than losses do.
    clearly = changed & (difference > 0.5 * strength)
    if (core & clearly).sum() < 0.5 * clearly.sum() or strength < LOSSES * typical:
        return nothing
    if typical > 0:
        changed &= difference > 0.25 * strength
    return core | (changed & ndimage.binary_dilation(core, np.ones((3, 3), bool), EDGE))


def commonest(colours: np.ndarray) -> np.ndarray:
    """The median of the fullest of 16^3 bins of (N, 3) colours in [0, 1]."""
    bins = np.minimum((colours * 16).astype(int), 15) @ np.array([256, 16, 1])
    return np.median(colours[bins == np.bincount(bins).argmax()], axis=0)


def strokes(colour: np.ndarray) -> np.ndarray | None:
    """Where a picture (H, W, 3) in [0, 1] has strokes of one colour on a flat grey ground; None if it is otherwise.

    What is at most half of it is strokes.
    """
    spread = np.ptp(colour, axis=-1)
    coloured, grey = spread > COLOURED, spread <= GREY
    if not coloured.any() or not grey.any():
        return None
    ground = grey & (np.abs(colour - np.median(colour[grey], axis=0)).max(-1) <= GREY)
    stroke = coloured & (np.abs(colour - commonest(colour[coloured])).max(-1) <= LOSSY)
    if (ground | stroke).mean() < 0.9 or stroke.mean() > 0.5 or stroke.sum() < 0.5 * (~ground).sum():
        return None
    return ~ground & (np.abs(colour - np.median(colour[grey], axis=0)).max(-1) > COLOURED)
